"""Batches: every image once, and the published augmentation."""
import numpy as np
import pytest

from mentormix.data import augmentation
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.data import png as png_lib
from mentormix.data import record_checks
from mentormix.messages import UserError
from mentormix.runtime import tf

CIFAR10 = datasets.get('cifar10')


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
  """103 images in three files; image n is of grey level n and class n % 10."""
  directory = tmp_path_factory.mktemp('records')
  paths = []
  for shard, indices in enumerate(np.array_split(np.arange(103), 3)):
    paths.append(str(directory / f'cifar10_train-{shard}'))
    with tf.python_io.TFRecordWriter(paths[-1]) as writer:
      for n in indices:
        png = png_lib.encode_png(np.full([32, 32, 3], n, np.uint8))
        writer.write(datasets.encode_example(png, n % 10, (n + 1) % 10,
                                             source_id=str(n)))
  return list(map(datasets.Shard, paths))


def _batches(batch, most):
  """Up to `most` batches as arrays, fewer where the stream ends."""
  values = []
  with tf.Session() as session:
    session.run(tf.local_variables_initializer())
    coordinator = tf.train.Coordinator()
    threads = tf.train.start_queue_runners(session, coordinator)
    try:
      for _ in range(most):
        values.append(session.run(batch))
    except tf.errors.OutOfRangeError:
      pass
    coordinator.request_stop()
    session.run([])
    session.close()
    coordinator.join(threads, stop_grace_period_secs=5,
                     ignore_live_threads=True)
  return values


@pytest.mark.parametrize('batch_size', [25, 103, 200, 1])
def test_evaluation_sees_every_image_once(shards, batch_size):
  batch = input_pipeline.eval_batch(CIFAR10, 'train', shards, 103, batch_size)
  batches = _batches(batch, 1000)
  assert [len(b.labels) for b in batches[:-1]] == (
      [batch_size] * (len(batches) - 1))
  images = np.concatenate([b.images for b in batches])
  levels = np.round(images[:, 0, 0, 0] * 127.5 + 127.5).astype(int)
  np.testing.assert_array_equal(levels, np.arange(103))
  labels = np.concatenate([b.labels for b in batches])
  np.testing.assert_array_equal(labels, levels % 10)


def test_test_images_are_standardized(shards):
  batch, = _batches(
      input_pipeline.eval_batch(CIFAR10, 'train', shards, 103, 103), 1)
  np.testing.assert_allclose(
      batch.images[100], np.full([32, 32, 3], (100 - 127.5) / 127.5), rtol=1e-6)


@pytest.fixture(params=['memory', 'files'])
def source(request, monkeypatch):
  """Both sources of records: decoded once, or read again in every epoch."""
  if request.param == 'files':
    monkeypatch.setattr(input_pipeline, 'MOST_IN_MEMORY', 103 * 3072 - 1)
  return request.param


def _levels(batches):
  """Grey levels of images as they are."""
  return np.concatenate([b.images[:, 0, 0, 0] for b in batches]).astype(int)


def test_training_batches(shards, source, monkeypatch):
  monkeypatch.setattr(augmentation, 'augment_in_parts',
                      lambda images, draws: images)
  batches = _batches(input_pipeline.train_batch(CIFAR10, shards, 103, 16), 60)
  assert len(batches) == 60  # Endless: more than nine epochs.
  for b in batches:
    assert b.images.shape == (16, 32, 32, 3) and b.labels.shape == (16,)
  levels = _levels(batches)
  np.testing.assert_array_equal(
      np.concatenate([b.labels for b in batches]), levels % 10)
  np.testing.assert_array_equal(
      np.concatenate([b.clean_labels for b in batches]), (levels + 1) % 10)
  np.testing.assert_array_equal(
      np.concatenate([b.source_ids for b in batches]),
      [str(n).encode() for n in levels])
  counts = np.bincount(levels, minlength=103)
  assert counts.min() >= 5 and counts.max() <= 14  # 9.3 each.
  assert not np.array_equal(levels[:103], np.sort(levels[:103]))


def test_from_memory_every_epoch_has_every_image_once(shards, monkeypatch):
  monkeypatch.setattr(augmentation, 'augment_in_parts',
                      lambda images, draws: images)
  levels = _levels(_batches(
      input_pipeline.train_batch(CIFAR10, shards, 103, 16), 20))
  first, second = levels[:103], levels[103:206]
  np.testing.assert_array_equal(np.sort(first), np.arange(103))
  np.testing.assert_array_equal(np.sort(second), np.arange(103))
  assert not np.array_equal(first, second)


def _stream(shards, count, **settings):
  tf.reset_default_graph()
  return _batches(input_pipeline.train_batch(
      CIFAR10, shards, 103, 16, **settings), count)


def test_indices_are_positions_in_the_records(shards, monkeypatch):
  """An index is the same image in every epoch and with several threads."""
  monkeypatch.setattr(augmentation, 'augment_in_parts',
                      lambda images, draws: images)
  batches = _stream(shards, 20, with_indices=True, num_threads=2)
  indices = np.concatenate([b.indices for b in batches])
  assert set(indices) == set(range(103))
  assert len(set(zip(indices, _levels(batches)))) == 103
  assert _stream(shards, 1)[0].indices == ()


def test_the_seed_fixes_the_stream(shards):
  images = lambda seed: np.concatenate(
      [b.images for b in _stream(shards, 8, seed=seed)])
  one = images(1)
  np.testing.assert_array_equal(one, images(1))
  assert np.abs(one - images(2)).max() > 0


@pytest.mark.parametrize('start', [1, 6, 7, 20])
def test_the_stream_resumes_where_it_stopped(shards, start):
  """Order and augmentation; an epoch ends in the seventh batch."""
  whole = _stream(shards, 24, seed=1)
  resumed = _stream(shards, 24, seed=1, start=start)
  for one, other in zip(whole[start:], resumed):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.source_ids, other.source_ids)


@pytest.mark.parametrize('start', [1, 7])
def test_the_light_stream_resumes_where_it_stopped(shards, start):
  whole = _stream(shards, 12, seed=1, light=True)
  resumed = _stream(shards, 5, seed=1, start=start, light=True)
  for one, other in zip(whole[start:], resumed):
    np.testing.assert_array_equal(one.images, other.images)


def test_light_flips_alternate_by_epoch(shards, monkeypatch):
  """Also where an epoch ends within a batch, and for several workers."""
  monkeypatch.setattr(augmentation, 'augment_lightly',
                      lambda images, draws: tf.cast(draws.flip, tf.float32))
  for workers in (1, 2):
    share = 103 // workers
    seen = {}
    for worker in range(workers):
      batches = _stream(shards, 20, seed=1, worker=worker, num_workers=workers,
                        light=True)
      flips = np.concatenate([b.images for b in batches])
      ids = np.concatenate([b.source_ids for b in batches])
      for n, (name, flip) in enumerate(zip(ids, flips)):
        seen.setdefault(name, set()).add((n // share % 2, flip))
    assert len(seen) == 103
    # An image that is mirrored in even epochs is not in odd ones.
    assert all(len({(parity + flip) % 2 for parity, flip in values}) == 1
               for values in seen.values())
    first = [sum(next(iter(values))) % 2 for values in seen.values()]
    assert 0.3 < np.mean(first) < 0.7


def test_from_files_light_flips_are_random(shards, monkeypatch):
  monkeypatch.setattr(input_pipeline, 'MOST_IN_MEMORY', 103 * 3072 - 1)
  monkeypatch.setattr(augmentation, 'augment_lightly',
                      lambda images, draws: tf.cast(draws.flip, tf.float32))
  flips = np.concatenate([b.images for b in _stream(shards, 40, light=True)])
  assert 0.4 < flips.mean() < 0.6


def test_workers_are_dealt_the_order_of_each_epoch(shards, monkeypatch):
  """34 images each of 103, another share in the next epoch."""
  monkeypatch.setattr(augmentation, 'augment_in_parts',
                      lambda images, draws: images)
  shares = [[b.source_ids for b in _stream(
      shards, 4, seed=1, worker=worker, num_workers=3, start=start)]
            for worker in range(3) for start in (0, 1)]
  whole = [np.concatenate(share) for share in shares[::2]]
  first = [set(share[:34]) for share in whole]
  assert [len(share) for share in first] == [34] * 3
  assert len(set.union(*first)) == 3 * 34
  second = set(whole[0][34:])
  assert len(second) == 64 - 34 and not second <= first[0]
  for k in range(3):  # Each resumes where it stopped.
    np.testing.assert_array_equal(shares[2 * k][1:], shares[2 * k + 1][:3])
  alone = np.concatenate([b.source_ids for b in _stream(shards, 4, seed=1)])
  assert set(alone[:34]) == first[0]


def test_workers_augment_alike_images_unlike(shards):
  one, other = (_stream(shards, 7, seed=1, worker=worker, num_workers=103,
                        start=0) for worker in range(2))
  assert len({i for b in one for i in b.source_ids}) > 50  # One an epoch.
  assert np.abs(one[0].images - other[0].images).max() > 0
  with pytest.raises(UserError, match='103 examples are too few for 104 work'):
    _stream(shards, 1, num_workers=104)


def test_many_threads_lose_and_double_nothing(shards, monkeypatch):
  monkeypatch.setattr(augmentation, 'augment_in_parts',
                      lambda images, draws: images)
  batches = _batches(input_pipeline.train_batch(
      CIFAR10, shards, 103, 103, num_threads=4), 6)
  for b in batches:  # An epoch each.
    assert len(set(b.source_ids)) == 103


def test_the_graph_holds_no_image(shards):
  """It is written to disk with every run."""
  input_pipeline.train_batch(CIFAR10, shards, 103, 16)
  graph_def = tf.get_default_graph().as_graph_def()
  assert len(graph_def.SerializeToString()) < 103 * 3072


def test_a_damaged_image_is_named(shards, tmp_path):
  path = str(tmp_path / 'cifar10_train-0')
  png = png_lib.encode_png(np.zeros([32, 32, 3], np.uint8))
  with tf.python_io.TFRecordWriter(path) as writer:
    for damaged in (False, False, True, False):
      writer.write(datasets.encode_example(
          png[:100] if damaged else png, 1, 1, source_id='7'))
  with pytest.raises(UserError, match='cifar10_train-0: record 2 has an image '
                                      'that cannot be decoded'):
    input_pipeline.train_batch(CIFAR10, [datasets.Shard(path)], 4, 2)


@pytest.fixture(scope='module')
def partly_bad(tmp_path_factory):
  """(shards, count): images 0 to 39 in three files, 8 of them bad.

  The bad ones are first, last, neighbours, of each kind, and all of a file.
  """
  directory = tmp_path_factory.mktemp('bad')
  paths = []
  for shard, indices in enumerate((range(20), range(20, 22), range(22, 40))):
    paths.append(str(directory / f'cifar10_train-{shard}'))
    with tf.python_io.TFRecordWriter(paths[-1]) as writer:
      for n in indices:
        png = png_lib.encode_png(np.full([32, 32, 3], n, np.uint8))
        if n in (7, 20):
          png = png[:100]
        writer.write(b'bad' if n in (0, 21, 39) else datasets.encode_example(
            png, 10 if n in (8, 9, 30) else n % 10, source_id=str(n)))
  return record_checks.check_files(CIFAR10, 'train', paths, 8)


GOOD = sorted(set(range(40)) - {0, 7, 8, 9, 20, 21, 30, 39})


@pytest.mark.parametrize('batch_size', [5, 100])
def test_evaluation_skips_bad_records(partly_bad, batch_size):
  shards, count = partly_bad
  assert count == len(GOOD)
  batches = _batches(input_pipeline.eval_batch(
      CIFAR10, 'train', shards, count, batch_size), 100)
  assert [int(i) for b in batches for i in b.source_ids] == GOOD


def test_training_skips_bad_records(partly_bad, source, monkeypatch):
  monkeypatch.setattr(input_pipeline, 'MOST_IN_MEMORY',
                      0 if source == 'files' else 2 ** 31)
  shards, count = partly_bad
  batches = _batches(input_pipeline.train_batch(
      CIFAR10, shards, count, 16), 30)
  assert len(batches) == 30
  found = [int(i) for b in batches for i in b.source_ids]
  assert set(found) == set(GOOD)
  assert [int(n) for b in batches for n in b.labels] == [n % 10 for n in found]
  if source == 'memory':
    assert sorted(found[:count]) == GOOD
