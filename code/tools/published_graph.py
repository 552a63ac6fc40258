"""Student and input in the form of the published graph, to compare speed with.

Only benchmark.py uses them. They compute what `students.resnet` and
`input_pipeline` do, from the same variables, with other operations. B is the
batch size, K the number of classes.
"""
from unittest import mock

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import input_pipeline
from mentormix.runtime import slim, tf
from mentormix.students import resnet as ours

_READERS = 4  # Threads that read files.
_PADDING = 4  # Pixels, in all: 32 -> 36, then cropped back at random.


def resnet(images, num_classes, is_training, depth, widths,
           update_statistics=True, dtype=tf.float32):
  """As `students.resnet.resnet`, but ValueError unless it trains in float32."""
  if not is_training or dtype != tf.float32:
    raise ValueError('the published form supports training in float32 only')
  with mock.patch.multiple(ours, _activate=_activate, batch_norm=batch_norm):
    return ours.resnet(images, num_classes, is_training, depth, widths,
                       update_statistics)


def _activate(x):
  """Leaky ReLU as a choice between two tensors."""
  return tf.where(tf.less(x, 0.0), ours.LEAKINESS * x, x)


@slim.add_arg_scope
def batch_norm(x, is_training, update_statistics, scope):
  """Batch norm of elementary operations: moments, then scale and shift."""
  del is_training
  with tf.variable_scope(scope):
    variable = lambda name, value, trainable=True: slim.model_variable(
        name, x.shape[-1:].as_list(), trainable=trainable,
        initializer=tf.constant_initializer(value))
    beta, gamma = variable('beta', 0.0), variable('gamma', 1.0)
    moving_mean = variable('moving_mean', 0.0, False)
    moving_variance = variable('moving_variance', 1.0, False)
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    if update_statistics:
      for update in (ours._move_debiased(moving_mean, mean),
                     ours._move(moving_variance, variance)):
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma,
                                     ours.BATCH_NORM_EPSILON)


def train_batch(split, batch_size, num_threads=4):
  """As `input_pipeline.train_batch`: records decoded and augmented one by one.

  Args:
    split: a `splits.Split`.
    batch_size: B.
    num_threads: threads that decode and augment.
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    provider = slim.dataset_data_provider.DatasetDataProvider(
        decoding.slim_dataset(split.dataset, 'train', split.shards,
                              split.count),
        num_readers=min(_READERS, len(split.shards)), shuffle=True,
        common_queue_capacity=2 * batch_size, common_queue_min=batch_size)
    image, *rest = provider.get(list(datasets.ITEMS))
    return input_pipeline.Batch(*tf.train.batch(
        [augment(image)] + rest, batch_size, num_threads=num_threads,
        capacity=4 * batch_size))


def augment(image):
  """Augments an image, uint8 [H, W, 3], to float32 [H, W, 3] in [-1, 1]."""
  height, width, channels = image.shape.as_list()
  image = tf.image.resize_image_with_crop_or_pad(
      image, height + _PADDING, width + _PADDING)
  image = tf.image.random_crop(image, [height, width, channels])
  image = tf.image.random_flip_left_right(image)
  image = tf.cast(image, tf.float32) / 255.0
  image = _distort_color(image)
  return 2.0 * (image - 0.5)


def _distort_color(image):
  """Brightness, saturation, hue and contrast, in one of two orders."""
  brightness = lambda x: tf.image.random_brightness(x, 32.0 / 255.0)
  saturation = lambda x: tf.image.random_saturation(x, 0.5, 1.5)
  hue = lambda x: tf.image.random_hue(x, 0.2)
  contrast = lambda x: tf.image.random_contrast(x, 0.5, 1.5)

  def apply(*steps):
    distorted = image
    for step in steps:
      distorted = step(distorted)
    return distorted

  first_order = tf.random.uniform([], maxval=2, dtype=tf.int32) < 1
  image = tf.cond(first_order,
                  lambda: apply(brightness, saturation, hue, contrast),
                  lambda: apply(brightness, contrast, saturation, hue))
  return tf.clip_by_value(image, 0.0, 1.0)
