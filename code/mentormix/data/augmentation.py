"""The augmentation of small training images, for a whole batch at a time.

The random numbers are drawn in one function and used in another, so that a
caller can provide them. B is the batch size; images are [B, H, W, 3].
"""
import typing

from mentormix.runtime import tf

_PADDING = 2  # Pixels on each side: 32 -> 36, then cropped back at random.
_BRIGHTNESS = 32.0 / 255.0
_SATURATION = (0.5, 1.5)
_HUE = 0.2
_CONTRAST = (0.5, 1.5)
_AT_A_TIME = 16  # Images, at most.


class Draws(typing.NamedTuple):
  """The random numbers of one batch, each [B]."""
  y: tf.Tensor  # int32, first row of the crop, -2 to 2.
  x: tf.Tensor  # int32, its first column.
  flip: tf.Tensor  # bool, whether to mirror left and right.
  brightness: tf.Tensor  # float32, added to the pixels.
  saturation: tf.Tensor  # float32, a factor.
  hue: tf.Tensor  # float32, added to the hue, in turns.
  contrast: tf.Tensor  # float32, a factor.
  contrast_first: tf.Tensor  # bool: contrast before saturation and hue?


def draw(batch_size, sampler):
  """`Draws` as published, from a `sampling.Sampler`."""
  uniform = lambda low, high: sampler.uniform([batch_size], low, high)
  integers = lambda low, high: sampler.integers([batch_size], low, high)
  return Draws(
      y=integers(-_PADDING, _PADDING), x=integers(-_PADDING, _PADDING),
      flip=integers(0, 1) < 1, brightness=uniform(-_BRIGHTNESS, _BRIGHTNESS),
      saturation=uniform(*_SATURATION), hue=uniform(-_HUE, _HUE),
      contrast=uniform(*_CONTRAST), contrast_first=integers(0, 1) < 1)


class LightDraws(typing.NamedTuple):
  """The random numbers of one batch of the light augmentation, each [B]."""
  y: tf.Tensor  # As of `Draws`.
  x: tf.Tensor
  flip: tf.Tensor


def draw_light(batch_size, sampler, flip):
  """`LightDraws` from a `sampling.Sampler`; `flip` [B] bool is given."""
  integers = lambda: sampler.integers([batch_size], -_PADDING, _PADDING)
  return LightDraws(y=integers(), x=integers(), flip=flip)


def alternating_flips(num_examples, sampler, indices, epochs):
  """Flips that alternate by epoch, so that two epochs show both sides.

  Which examples begin mirrored is random (Jordan, 2024, arXiv:2404.00498).

  Args:
    num_examples: N.
    sampler: a `sampling.Sampler` that draws the same in every step.
    indices: int32 [B], of the examples, below N.
    epochs: int64 [B], how often each was used before.

  Returns:
    [B] bool.
  """
  begins = tf.gather(sampler.integers([num_examples], 0, 1), indices)
  return tf.equal((tf.cast(begins, tf.int64) + epochs) % 2, 1)


def augment_lightly(images, draws):
  """Crops and flips, as `augment` but padded by reflection; no distortion.

  Args:
    images: uint8 [B, H, W, 3].
    draws: `LightDraws`.

  Returns:
    float32 [B, H, W, 3] in [-1, 1].
  """
  images = _crop_and_flip(images, draws, 'REFLECT')
  return (tf.cast(images, tf.float32) - 127.5) / 127.5


def augment_in_parts(images, draws):
  """The same as `augment`, a few images at a time: faster on a CPU.

  Operations on a few images stay in the cache and in one thread, so several
  threads can augment several batches.
  """
  batch_size = images.shape[0].value
  part = max(size for size in range(1, _AT_A_TIME + 1) if not batch_size % size)
  split = lambda x: tf.reshape(x, [-1, part] + x.shape.as_list()[1:])
  augmented = tf.map_fn(
      lambda parts: augment(parts[0], Draws(*parts[1:])),
      tuple(map(split, (images,) + draws)), dtype=tf.float32,
      parallel_iterations=1)
  return tf.reshape(augmented, images.shape)


def augment(images, draws):
  """Crops, flips and distorts.

  Args:
    images: uint8 [B, H, W, 3].
    draws: a `Draws`.

  Returns:
    float32 [B, H, W, 3] in [-1, 1].
  """
  images = _crop_and_flip(images, draws, 'CONSTANT')
  per_image = lambda x: x[:, tf.newaxis, tf.newaxis]  # [B, 1, 1]
  # As planes [B, H, W] of red, green and blue: operations that mix the colours
  # are then wide, and several times as fast as image by image.
  planes = tf.unstack(tf.cast(images, tf.float32) / 255.0, axis=3)
  planes = [x + per_image(draws.brightness) for x in planes]
  ones = tf.ones_like(draws.contrast)
  planes = _scale_contrast(planes, per_image(
      tf.where(draws.contrast_first, draws.contrast, ones)))
  planes = _turn_hue(planes, per_image(draws.saturation), per_image(draws.hue))
  planes = _scale_contrast(planes, per_image(
      tf.where(draws.contrast_first, ones, draws.contrast)))
  return 2.0 * tf.clip_by_value(tf.stack(planes, axis=3), 0.0, 1.0) - 1.0


def _crop_and_flip(images, draws, padding):
  """The window at (y, x) of each padded image, maybe mirrored.

  `padding` is the mode of tf.pad; CONSTANT pads with black.
  """
  height, width, channels = images.shape.as_list()[1:]
  images = tf.pad(
      images, [[0, 0], [_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]],
      padding)
  rows, columns = height + 2 * _PADDING, width + 2 * _PADDING
  y = tf.range(height) + (draws.y + _PADDING)[:, tf.newaxis]  # [B, H]
  # Column w of the result is column w, or width - 1 - w if mirrored.
  x = tf.where(draws.flip[:, tf.newaxis] & tf.ones([width], tf.bool),
               tf.zeros_like(y[:, :1]) + tf.range(width - 1, -1, -1),
               tf.zeros_like(y[:, :1]) + tf.range(width))
  x += (draws.x + _PADDING)[:, tf.newaxis]  # [B, W]
  first = rows * tf.range(tf.shape(images)[0])  # First row of each image.
  pixels = (columns * (first[:, tf.newaxis] + y)[:, :, tf.newaxis]
            + x[:, tf.newaxis, :])  # [B, H, W]
  return tf.gather(tf.reshape(images, [-1, channels]), pixels)


def _scale_contrast(planes, factor):
  """Scales the distance of every plane from its mean."""
  return [factor * x
          + (1 - factor) * tf.reduce_mean(x, axis=[1, 2], keepdims=True)
          for x in planes]


def _turn_hue(planes, saturation, hue):
  """Scales the saturation and turns the hue, as in HSV space.

  It does so without converting: where `top` is the value V and `chroma` the
  product of S and V, each colour is top - chroma * w, and w depends on the
  distance of the hue, 0 to 6 around the circle, from the opposite colour.
  """
  red, green, blue = planes
  top = tf.maximum(tf.maximum(red, green), blue)
  chroma = top - tf.minimum(tf.minimum(red, green), blue)
  inverse = 1.0 / tf.maximum(chroma, 1e-20)  # Grey has no hue.
  angle = tf.where(
      tf.equal(top, red), (green - blue) * inverse,
      tf.where(tf.equal(top, green), 2.0 + (blue - red) * inverse,
               4.0 + (red - green) * inverse))
  angle += 6.0 * hue
  angle -= 6.0 * tf.floor(angle / 6.0)
  # A pure colour is the most saturated; negative values have no saturation.
  chroma = tf.minimum(saturation * chroma, tf.maximum(top, 0.0))
  from_cyan = tf.abs(angle - 3.0)
  from_magenta = 3.0 - tf.abs(3.0 - tf.abs(angle - 5.0))
  from_yellow = 3.0 - tf.abs(3.0 - tf.abs(angle - 1.0))
  return [top - chroma * tf.clip_by_value(2.0 - distance, 0.0, 1.0)
          for distance in (from_cyan, from_magenta, from_yellow)]
