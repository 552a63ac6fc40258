"""Crops against slices of the image, passes against the records."""
import io

import numpy as np
from PIL import Image
import pytest

from mentormix.data import augmentation
from mentormix.data import datasets
from mentormix.data import photo_input
from mentormix.runtime import tf

DATASET = datasets.Dataset('photos', 5, 32, datasets.LABEL)
SIZES = [(40, 60), (90, 50), (64, 64), (200, 120), (33, 47)]  # H, W.


def _jpeg(image):
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, 'JPEG', quality=95, subsampling=0)
  return stream.getvalue()


def _ramp(height, width):
  """Red grows to the right, green downwards; blue is half."""
  x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
  return np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8)


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(3)


@pytest.fixture(name='shards', scope='module')
def fixture_shards(tmp_path_factory):
  """50 images in three files; image n is of size n % 5 and class n % 5."""
  directory = tmp_path_factory.mktemp('photos')
  paths = [str(directory / f'photos_train-{k}') for k in range(3)]
  for k, path in enumerate(paths):
    with tf.python_io.TFRecordWriter(path) as writer:
      for n in range(k, 50, 3):
        writer.write(datasets.encode_example(
            _jpeg(_ramp(*SIZES[n % 5])), n % 5, None if n == 7 else 0,
            source_id=f'image {n}'))
  return [datasets.Shard(path) for path in paths]


def _run(batch, count=None):
  """The values of some batches, or of all of a pass."""
  found = []
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
    coordinator = tf.train.Coordinator()
    threads = tf.train.start_queue_runners(session, coordinator)
    try:
      while count is None or len(found) < count:
        found.append(session.run(batch))
    except tf.errors.OutOfRangeError:
      pass
    coordinator.request_stop()
    coordinator.join(threads, stop_grace_period_secs=30,
                     ignore_live_threads=True)
  return found


@pytest.mark.parametrize('recipe', sorted(photo_input.RECIPES))
def test_a_pass_has_every_image_once(shards, recipe):
  batches = _run(photo_input.eval_batch(DATASET, 'train', shards, 50, 8, 32,
                                        recipe))
  assert [len(batch.images) for batch in batches] == [8] * 6 + [2]
  ids = np.concatenate([batch.source_ids for batch in batches])
  assert sorted(ids) == sorted(b'image %d' % n for n in range(50))
  labels = np.concatenate([batch.labels for batch in batches])
  clean = np.concatenate([batch.clean_labels for batch in batches])
  for name, label, known in zip(ids, labels, clean):
    n = int(name.split()[1])
    assert label == n % 5
    assert known == (datasets.UNKNOWN_LABEL if n == 7 else 0)
  images = np.concatenate([batch.images for batch in batches])
  assert images.shape == (50, 32, 32, 3) and np.abs(images).max() <= 1
  # The centre of a ramp is grey, whatever the size of the image.
  np.testing.assert_allclose(images[:, 15:17, 15:17].mean(axis=(1, 2)), 0,
                             atol=0.06)


@pytest.mark.parametrize('recipe,shape,expected', [
    # What share of height and width the test crop shows.
    ('inception', (200, 120), (0.875, 0.875)),
    ('resize_crop', (200, 120), (299 / 320, 299 / 320)),
    ('ncr', (200, 120), (0.875 * 120 / 200, 0.875)),
    ('ncr', (90, 150), (0.875, 0.875 * 90 / 150)),
    ('cifar', (200, 120), (1, 1))])
def test_the_test_crop(recipe, shape, expected):
  image = photo_input.test_image(tf.constant(_jpeg(_ramp(*shape))), 64,
                                 photo_input.RECIPES[recipe])
  with tf.Session() as session:
    found = (session.run(image) + 1) / 2
  height = found[-1, :, 1].mean() - found[0, :, 1].mean()
  width = found[:, -1, 0].mean() - found[:, 0, 0].mean()
  np.testing.assert_allclose([height, width], np.multiply(expected, 63 / 64),
                             atol=0.02)


@pytest.mark.parametrize('recipe', sorted(
    set(photo_input.RECIPES) - {'cifar'}))
def test_training_crops(recipe):
  """Boxes of the whole range, inside the image, mirrored half of the time."""
  settings = photo_input.RECIPES[recipe]._replace(brightness=0.0,
                                                  saturation=(1.0, 1.0))
  image = photo_input.train_image(tf.constant(_jpeg(_ramp(160, 120))), 16,
                                  settings)
  with tf.Session() as session:
    found = np.array([session.run(image) for _ in range(300)])
  assert found.shape == (300, 16, 16, 3) and np.abs(found).max() <= 1
  width = (found[:, :, -1, 0] - found[:, :, 0, 0]).mean(axis=1) / 2 * 16 / 15
  height = (found[:, -1, :, 1] - found[:, 0, :, 1]).mean(axis=1) / 2 * 16 / 15
  assert 0.4 < (width < 0).mean() < 0.6 and (height > 0).all()
  width = np.abs(width)
  if settings.resized:
    np.testing.assert_allclose(width, 299 / 320, atol=0.03)
    np.testing.assert_allclose(height, 299 / 320, atol=0.03)
  else:
    area = width * height
    assert area.min() < 0.15 and area.max() > 0.8 and area.max() < 1.05
    aspect = width * 120 / (height * 160)
    assert 0.7 < aspect.min() < 0.85 and 1.2 < aspect.max() < 1.42


def test_small_images_are_those_of_pillow_with_the_published_augmentation(
    monkeypatch):
  pixels = np.random.RandomState(0).randint(256, size=[21, 14, 3])
  encoded = _jpeg(np.array(Image.fromarray(pixels.astype(np.uint8)).resize(
      (98, 84))))
  recipe = photo_input.RECIPES['cifar']
  tested = photo_input.test_image(tf.constant(encoded), 32, recipe)
  draws = augmentation.Draws(*map(tf.constant, (
      [1], [-2], [True], [0.1], [0.7], [0.1], [1.2], [True])))
  monkeypatch.setattr(augmentation, 'draw', lambda size, sampler: draws)
  trained = photo_input.train_image(tf.constant(encoded), 32, recipe)
  small = np.array(Image.open(io.BytesIO(encoded)).resize(
      (32, 32), Image.BICUBIC))
  expected = augmentation.augment(tf.constant(small[np.newaxis]), draws)[0]
  with tf.Session() as session:
    tested, trained, expected = session.run([tested, trained, expected])
  np.testing.assert_allclose(127.5 * (tested + 1), small, atol=2)
  assert np.abs(trained - expected).mean() < 0.02
  assert trained.std() > 0.1


def test_small_images_are_distorted_anew():
  image = photo_input.train_image(tf.constant(_jpeg(_ramp(64, 64))), 32,
                                  photo_input.RECIPES['cifar'])
  with tf.Session() as session:
    found = np.array([session.run(image) for _ in range(200)])
  assert len({image.tobytes() for image in found}) == 200
  assert np.abs(found).max() <= 1
  right, left = found[:, :, 20:28].mean(axis=2), found[:, :, 4:12].mean(axis=2)
  mirrored = (right - left)[..., 0].mean(axis=1) < 0
  assert 0.35 < mirrored.mean() < 0.65


def test_training_mixes_all_files_and_distorts(shards):
  batches = _run(photo_input.train_batch(shards, 50, 10, 24, 'inception',
                                         num_threads=2), 20)
  ids = np.array([batch.source_ids for batch in batches])
  assert set(ids.ravel()) == {b'image %d' % n for n in range(50)}
  assert len({tuple(row) for row in ids}) == 20
  assert np.mean([len({int(n.split()[1]) % 3 for n in row}) == 3
                  for row in ids]) > 0.5  # Less under load: 50 images are few.
  images = np.concatenate([batch.images for batch in batches])
  assert images.shape == (200, 24, 24, 3) and np.abs(images).max() <= 1
  brightness = images[..., 2].mean(axis=(1, 2))  # Blue is half everywhere.
  assert brightness.std() > 0.08
