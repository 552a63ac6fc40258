"""The published augmentation of training images, for a whole batch at a time.

The random numbers are drawn apart from what is done with them, so that a step
can be told them. B is the batch size; images are [B, H, W, 3].
"""
import collections

from mentormix.runtime import tf

_PADDING = 2  # Pixels on each side: 32 -> 36, then cropped back at random.
_BRIGHTNESS = 32.0 / 255.0
_SATURATION = (0.5, 1.5)
_HUE = 0.2
_CONTRAST = (0.5, 1.5)
_AT_A_TIME = 16  # Images, at most.


class Draws(collections.namedtuple(
    'Draws', 'y x flip brightness saturation hue contrast contrast_first')):
  """The random numbers of one batch, each [B].

  Attributes:
    y: int32, first row of the crop, -2 to 2.
    x: int32, its first column.
    flip: bool, whether left and right change places.
    brightness: float32, what is added.
    saturation: float32, factor.
    hue: float32, what is added, in turns.
    contrast: float32, factor.
    contrast_first: bool, whether contrast comes before saturation and hue.
  """
  __slots__ = ()


def draw(batch_size, sampler):
  """`Draws` as published, from a `sampling.Sampler`."""
  uniform = lambda low, high: sampler.uniform([batch_size], low, high)
  integers = lambda low, high: sampler.integers([batch_size], low, high)
  return Draws(
      y=integers(-_PADDING, _PADDING), x=integers(-_PADDING, _PADDING),
      flip=integers(0, 1) < 1, brightness=uniform(-_BRIGHTNESS, _BRIGHTNESS),
      saturation=uniform(*_SATURATION), hue=uniform(-_HUE, _HUE),
      contrast=uniform(*_CONTRAST), contrast_first=integers(0, 1) < 1)


def augment_in_parts(images, draws):
  """As `augment`, some images at a time, which is faster on a CPU.

  Operations on few images stay in its cache and in one thread; so several
  batches can be augmented by several threads.
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
  images = _crop_and_flip(images, draws)
  per_image = lambda x: x[:, tf.newaxis, tf.newaxis]  # [B, 1, 1]
  # As planes [B, H, W] of red, green and blue: what the colours are mixed by
  # then are wide operations, several times as fast as image by image.
  planes = tf.unstack(tf.cast(images, tf.float32) / 255.0, axis=3)
  planes = [x + per_image(draws.brightness) for x in planes]
  ones = tf.ones_like(draws.contrast)
  planes = _scale_contrast(planes, per_image(
      tf.where(draws.contrast_first, draws.contrast, ones)))
  planes = _turn_hue(planes, per_image(draws.saturation), per_image(draws.hue))
  planes = _scale_contrast(planes, per_image(
      tf.where(draws.contrast_first, ones, draws.contrast)))
  return 2.0 * tf.clip_by_value(tf.stack(planes, axis=3), 0.0, 1.0) - 1.0


def _crop_and_flip(images, draws):
  """The window at (y, x) of each image with a black rim; mirrored or not."""
  height, width, channels = images.shape.as_list()[1:]
  images = tf.pad(
      images, [[0, 0], [_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]])
  rows, columns = height + 2 * _PADDING, width + 2 * _PADDING
  y = tf.range(height) + (draws.y + _PADDING)[:, tf.newaxis]  # [B, H]
  # Column w of the result comes from w, or, mirrored, from width - 1 - w.
  x = tf.where(draws.flip[:, tf.newaxis] & tf.ones([width], tf.bool),
               tf.zeros_like(y[:, :1]) + tf.range(width - 1, -1, -1),
               tf.zeros_like(y[:, :1]) + tf.range(width))
  x += (draws.x + _PADDING)[:, tf.newaxis]  # [B, W]
  first = rows * tf.range(tf.shape(images)[0])  # Row of each image in all rows.
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

  Without going there: with `top` the value V and `chroma` the product of S and
  V, each colour is top - chroma * w, where w depends on how far the hue, 0 to 6
  around the circle, is from the opposite of that colour.

  Args:
    planes: red, green and blue, each [B, H, W].
    saturation: [B, 1, 1], factor.
    hue: [B, 1, 1], in turns.
  """
  red, green, blue = planes
  top = tf.maximum(tf.maximum(red, green), blue)
  chroma = top - tf.minimum(tf.minimum(red, green), blue)
  inverse = 1.0 / tf.maximum(chroma, 1e-20)  # Of grey, any hue is the same.
  angle = tf.where(
      tf.equal(top, red), (green - blue) * inverse,
      tf.where(tf.equal(top, green), 2.0 + (blue - red) * inverse,
               4.0 + (red - green) * inverse))
  angle += 6.0 * hue
  angle -= 6.0 * tf.floor(angle / 6.0)
  # No colour is more saturated than pure, none below black has any.
  chroma = tf.minimum(saturation * chroma, tf.maximum(top, 0.0))
  from_cyan = tf.abs(angle - 3.0)
  from_magenta = 3.0 - tf.abs(3.0 - tf.abs(angle - 5.0))
  from_yellow = 3.0 - tf.abs(3.0 - tf.abs(angle - 1.0))
  return [top - chroma * tf.clip_by_value(2.0 - distance, 0.0, 1.0)
          for distance in (from_cyan, from_magenta, from_yellow)]
