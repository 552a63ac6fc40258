"""Batches: every image once, and the published augmentation."""
import numpy as np
import pytest

from mentormix import datasets
from mentormix import input_pipeline
from mentormix.runtime import tf
import prepare_data

CIFAR10 = datasets.get('cifar10')


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(7)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """103 images in three files; image n is of grey level n and class n % 10."""
  directory = tmp_path_factory.mktemp('records')
  paths = []
  for shard, indices in enumerate(np.array_split(np.arange(103), 3)):
    paths.append(str(directory / ('cifar10_train-%d' % shard)))
    with tf.python_io.TFRecordWriter(paths[-1]) as writer:
      for n in indices:
        png = prepare_data.encode_png(np.full([32, 32, 3], n, np.uint8))
        writer.write(datasets.encode_example(png, n % 10, (n + 1) % 10))
  return paths


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
def test_evaluation_sees_every_image_once(files, batch_size):
  batch = input_pipeline.eval_batch(CIFAR10, 'train', files, 103, batch_size)
  batches = _batches(batch, 1000)
  assert [len(b.labels) for b in batches[:-1]] == (
      [batch_size] * (len(batches) - 1))
  images = np.concatenate([b.images for b in batches])
  levels = np.round(images[:, 0, 0, 0] * 127.5 + 127.5).astype(int)
  np.testing.assert_array_equal(levels, np.arange(103))
  labels = np.concatenate([b.labels for b in batches])
  np.testing.assert_array_equal(labels, levels % 10)


def test_test_images_are_standardized(files):
  batch, = _batches(
      input_pipeline.eval_batch(CIFAR10, 'train', files, 103, 103), 1)
  np.testing.assert_allclose(
      batch.images[100], np.full([32, 32, 3], (100 - 127.5) / 127.5), rtol=1e-6)


def test_training_batches(files, monkeypatch):
  monkeypatch.setattr(input_pipeline, 'augment', input_pipeline.standardize)
  batches = _batches(input_pipeline.train_batch(CIFAR10, files, 103, 16), 60)
  assert len(batches) == 60  # Endless: more than nine epochs.
  levels, labels, clean = [], [], []
  for b in batches:
    assert b.images.shape == (16, 32, 32, 3) and b.labels.shape == (16,)
    levels.extend(np.round(b.images[:, 0, 0, 0] * 127.5 + 127.5).astype(int))
    labels.extend(b.labels)
    clean.extend(b.clean_labels)
  levels = np.array(levels)
  np.testing.assert_array_equal(np.array(labels), levels % 10)
  np.testing.assert_array_equal(np.array(clean), (levels + 1) % 10)
  counts = np.bincount(levels, minlength=103)
  assert counts.min() >= 5 and counts.max() <= 14  # 9.3 each.
  assert not np.array_equal(levels[:103], np.sort(levels[:103]))


def test_one_reader_and_a_seed_fix_the_stream(files):
  def levels(seed):
    tf.reset_default_graph()
    tf.set_random_seed(seed)
    batches = _batches(input_pipeline.train_batch(
        CIFAR10, files, 103, 16, num_readers=1, num_threads=1), 8)
    return np.concatenate([b.images for b in batches])

  np.testing.assert_array_equal(levels(1), levels(1))
  assert np.abs(levels(1) - levels(2)).max() > 0


def test_crop_and_flip(monkeypatch):
  """Every result is one of 25 crops, flipped or not, and all occur."""
  monkeypatch.setattr(input_pipeline, '_distort_color', lambda image: image)
  image = np.random.RandomState(0).randint(1, 256, [32, 32, 3]).astype(np.uint8)
  padded = np.pad(image, [[2, 2], [2, 2], [0, 0]], 'constant')
  expected = {}
  for y in range(5):
    for x in range(5):
      crop = padded[y:y + 32, x:x + 32]
      expected[crop.tobytes()] = (y, x, False)
      expected[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (y, x, True)
  assert len(expected) == 50
  output = input_pipeline.augment(tf.constant(image))
  seen = set()
  with tf.Session() as session:
    for _ in range(600):
      pixels = np.round((session.run(output) / 2 + 0.5) * 255).astype(np.uint8)
      seen.add(expected[pixels.tobytes()])
  assert len(seen) == 50


def test_colour_steps_in_two_orders(monkeypatch):
  calls = []

  def record(name):
    def step(image, *amounts):
      calls.append((name,) + amounts)
      return image
    return step

  for name in ('brightness', 'saturation', 'hue', 'contrast'):
    monkeypatch.setattr(tf.image, 'random_' + name, record(name))
  input_pipeline._distort_color(tf.zeros([32, 32, 3]))
  brightness, hue = ('brightness', 32.0 / 255.0), ('hue', 0.2)
  saturation, contrast = ('saturation', 0.5, 1.5), ('contrast', 0.5, 1.5)
  assert calls == [brightness, saturation, hue, contrast,
                   brightness, contrast, saturation, hue]


def test_colour_amounts():
  """On grey, only brightness shows: uniform within 32 / 255."""
  grey = tf.fill([32, 32, 3], 0.5)
  output = input_pipeline._distort_color(grey)
  with tf.Session() as session:
    shifts = np.array([session.run(output)[0, 0, 0] for _ in range(800)]) - 0.5
  bound = 32.0 / 255.0
  assert np.abs(shifts).max() <= bound + 1e-5
  assert np.abs(shifts).max() > 0.97 * bound
  assert abs(shifts.mean()) < 0.1 * bound
  assert abs(shifts.std() / (bound / np.sqrt(3)) - 1) < 0.1


def test_augmented_images_stay_in_range_and_differ():
  image = tf.constant(np.random.RandomState(1).randint(
      0, 256, [32, 32, 3]).astype(np.uint8))
  output = input_pipeline.augment(image)
  assert output.shape.as_list() == [32, 32, 3]
  with tf.Session() as session:
    values = np.stack([session.run(output) for _ in range(50)])
  assert values.min() >= -1 and values.max() <= 1
  # The random steps are drawn independently: brightness does not tell the hue.
  assert len(np.unique(values.reshape(50, -1).mean(axis=1))) == 50
