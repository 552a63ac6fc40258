"""Tests of augmenting batches, against TensorFlow's own functions."""
import numpy as np
import pytest

from mentormix import sampling
from mentormix.data import augmentation
from mentormix.runtime import tf

B = 64


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()


def _images(seed=0):
  return np.random.RandomState(seed).randint(
      0, 256, [B, 32, 32, 3]).astype(np.uint8)


def _run(fetches, feed=None):
  with tf.Session() as session:
    return session.run(fetches, feed)


def _drawn(**fixed):
  """Draws as published, except for fixed values, as arrays."""
  draws = _run(augmentation.draw(B, sampling.Sampler(7, 0)))
  return draws._replace(**{name: np.full(B, value, getattr(draws, name).dtype)
                           for name, value in fixed.items()})


STILL = dict(y=0, x=0, flip=False, brightness=0, saturation=1, hue=0,
             contrast=1)


def _augment(images, draws):
  return _run(augmentation.augment(
      tf.constant(images), augmentation.Draws(*map(tf.constant, draws))))


def _published(image, draws, n):
  """The published chain on one image, by tf.image with the same numbers."""
  image = np.pad(image, [[2, 2], [2, 2], [0, 0]], 'constant')
  y, x = draws.y[n] + 2, draws.x[n] + 2
  image = tf.constant(image[y:y + 32, x:x + 32])
  if draws.flip[n]:
    image = tf.image.flip_left_right(image)
  image = tf.cast(image, tf.float32) / 255.0
  image = tf.image.adjust_brightness(image, draws.brightness[n])
  if draws.contrast_first[n]:
    image = tf.image.adjust_contrast(image, draws.contrast[n])
  image = tf.image.adjust_saturation(image, draws.saturation[n])
  image = tf.image.adjust_hue(image, draws.hue[n])
  if not draws.contrast_first[n]:
    image = tf.image.adjust_contrast(image, draws.contrast[n])
  return 2.0 * (tf.clip_by_value(image, 0.0, 1.0) - 0.5)


@pytest.mark.parametrize('kind', ['noise', 'dark', 'grey', 'few_colours'])
def test_as_the_published_chain(kind):
  images = _images()
  if kind == 'dark':  # Brightness and contrast then give negative values.
    images //= 8
  elif kind == 'grey':
    images[...] = images[..., :1]
  elif kind == 'few_colours':  # Ties between the three colours.
    images = images // 128 * 255
  draws = _drawn()
  expected = _run([_published(image, draws, n)
                   for n, image in enumerate(images)])
  # Hue is a quotient: the larger the chroma, the more exact it is.
  np.testing.assert_allclose(_augment(images, draws), expected, atol=2e-5)


@pytest.mark.parametrize('count', [1, 7, 17, 25, 48])
def test_in_parts_is_the_same(count):
  images = tf.constant(_images()[:count])
  draws = augmentation.Draws(*[tf.constant(x[:count]) for x in _drawn()])
  whole, parts = _run([augmentation.augment(images, draws),
                       augmentation.augment_in_parts(images, draws)])
  np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_neutral_draws_change_nothing():
  images = _images()
  np.testing.assert_allclose(
      _augment(images, _drawn(**STILL)), images / 127.5 - 1, atol=1e-5)


def test_crop_and_flip():
  """Every result is one of 25 crops, mirrored or not, with a black rim."""
  images = _images()
  draws = _drawn(**STILL)._replace(
      y=np.arange(B, dtype=np.int32) % 5 - 2,
      x=np.arange(B, dtype=np.int32) // 5 % 5 - 2, flip=np.arange(B) % 2 == 1)
  levels = np.round((_augment(images, draws) + 1) * 127.5)
  padded = np.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], 'constant')
  for n in range(B):
    y, x = draws.y[n] + 2, draws.x[n] + 2
    crop = padded[n, y:y + 32, x:x + 32]
    np.testing.assert_array_equal(
        levels[n], crop[:, ::-1] if draws.flip[n] else crop)


def test_the_light_augmentation():
  """One of 25 crops, mirrored or not, with a reflected rim; else as it is."""
  images = _images()
  draws = augmentation.LightDraws(
      y=np.arange(B, dtype=np.int32) % 5 - 2,
      x=np.arange(B, dtype=np.int32) // 5 % 5 - 2, flip=np.arange(B) % 2 == 1)
  found = _run(augmentation.augment_lightly(
      tf.constant(images), augmentation.LightDraws(*map(tf.constant, draws))))
  padded = np.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], 'reflect')
  for n in range(B):
    y, x = draws.y[n] + 2, draws.x[n] + 2
    crop = padded[n, y:y + 32, x:x + 32] / 127.5 - 1
    np.testing.assert_allclose(
        found[n], crop[:, ::-1] if draws.flip[n] else crop, atol=1e-6)


def test_light_draws_are_even():
  flip = tf.constant([True, False] * 10000)
  draws = _run(augmentation.draw_light(20000, sampling.Sampler(7, 0), flip))
  for values in (draws.x, draws.y):
    shares = [np.mean(values == choice) for choice in range(-2, 3)]
    assert sum(shares) == pytest.approx(1)
    assert np.abs(np.array(shares) * 5 - 1).max() < 0.06
  assert abs(np.corrcoef(draws.x, draws.y)[0, 1]) < 0.03
  assert draws.flip.tolist() == [True, False] * 10000


def test_flips_alternate():
  """Half of the images begin mirrored; each has the other side next time."""
  indices = np.arange(2000, dtype=np.int32)
  flips = [_run(augmentation.alternating_flips(
      2000, sampling.Sampler(7, 0), tf.constant(indices),
      tf.constant(np.full(2000, epoch, np.int64)))) for epoch in range(3)]
  assert abs(flips[0].mean() - 0.5) < 0.05
  np.testing.assert_array_equal(flips[1], ~flips[0])
  np.testing.assert_array_equal(flips[2], flips[0])


@pytest.mark.parametrize('name,low,high', [
    ('brightness', -32 / 255.0, 32 / 255.0), ('saturation', 0.5, 1.5),
    ('hue', -0.2, 0.2), ('contrast', 0.5, 1.5)])
def test_amounts_are_uniform(name, low, high):
  values = getattr(_run(augmentation.draw(20000, sampling.Sampler(7, 0))), name)
  assert values.dtype == np.float32
  shares = np.histogram(values, 10, (low, high))[0] / 20000.0
  assert shares.sum() == 1  # None outside.
  assert np.abs(shares - 0.1).max() < 0.012


@pytest.mark.parametrize('name,choices', [
    ('y', range(-2, 3)), ('x', range(-2, 3)), ('flip', (False, True)),
    ('contrast_first', (False, True))])
def test_choices_are_even(name, choices):
  values = getattr(_run(augmentation.draw(20000, sampling.Sampler(7, 0))), name)
  shares = [np.mean(values == choice) for choice in choices]
  assert abs(sum(shares) - 1) < 1e-9
  assert np.abs(np.array(shares) * len(choices) - 1).max() < 0.06


def test_draws_are_independent():
  draws = _run(augmentation.draw(20000, sampling.Sampler(7, 0)))
  correlation = np.corrcoef(np.stack([np.float64(x) for x in draws]))
  assert np.abs(correlation - np.eye(len(draws))).max() < 0.03


def test_result_is_in_range():
  values = _augment(_images(), _drawn())
  assert values.dtype == np.float32 and values.shape == (B, 32, 32, 3)
  assert values.min() == -1 and values.max() == 1
