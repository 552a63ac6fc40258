"""Files -> queue -> batch, with tf-slim's reader, decoder and provider.

Training: several readers take the files in random order into a shuffling queue;
several threads decode and augment; a second queue forms the batches.
Evaluation: one reader, in order, every image exactly once. B is the batch size.
"""
import collections

from mentormix import datasets
from mentormix.runtime import slim
from mentormix.runtime import tf

# The shuffling queue holds this share of an epoch, at most so many records (of
# about 3 kB), at least what the published one holds: B records kept back.
_SHUFFLED_SHARE = 4
_MAX_SHUFFLED = 8192

_ITEMS = ['image', 'label', 'clean_label', 'source_id']  # As in `Batch`.

_PADDING = 4  # Pixels, in all: 32 -> 36, then cropped back at random.


class Batch(collections.namedtuple(
    'Batch', 'images labels clean_labels source_ids')):
  """A batch.

  Attributes:
    images: float32 [B, H, W, 3] in [-1, 1].
    labels: int64 [B], as given.
    clean_labels: int64 [B], datasets.UNKNOWN_LABEL where not known.
    source_ids: string [B], empty where not known.
  """
  __slots__ = ()


def train_batch(dataset, files, num_examples, batch_size, num_readers=4,
                num_threads=4):
  """An endless, shuffled, augmented stream of batches.

  Args:
    dataset: a `datasets.Dataset`.
    files: paths of the TFRecords of the training split.
    num_examples: how many records they hold.
    batch_size: B.
    num_readers: threads that read files.
    num_threads: threads that decode and augment.

  Returns:
    A `Batch`. Order and augmentation follow tf.set_random_seed; with one reader
    and one thread they are the same every time.
  """
  kept_back = max(batch_size, min(num_examples // _SHUFFLED_SHARE,
                                  _MAX_SHUFFLED))
  with tf.device('/cpu:0'), tf.name_scope('input'):
    provider = slim.dataset_data_provider.DatasetDataProvider(
        datasets.slim_dataset(dataset, 'train', files, num_examples),
        num_readers=min(num_readers, len(files)), shuffle=True,
        # Room for one more: each draw is then from as many records, whoever is
        # faster, reader or consumer.
        common_queue_capacity=kept_back + 1, common_queue_min=kept_back)
    image, *rest = provider.get(_ITEMS)
    return Batch(*tf.train.batch(
        [augment(image)] + rest, batch_size, num_threads=num_threads,
        capacity=4 * batch_size))


def eval_batch(dataset, split, files, num_examples, batch_size):
  """One pass in file order; then tf.errors.OutOfRangeError.

  The last batch holds what is left. The pass is bounded by a local variable, so
  run tf.local_variables_initializer before it.

  Args:
    dataset: a `datasets.Dataset`.
    split: 'train' or 'test'.
    files: paths of the TFRecords of the split.
    num_examples: how many records they hold.
    batch_size: B.

  Returns:
    A `Batch` with a first dimension of at most B.
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    provider = slim.dataset_data_provider.DatasetDataProvider(
        datasets.slim_dataset(dataset, split, files, num_examples),
        num_readers=1, shuffle=False, num_epochs=1)
    image, *rest = provider.get(_ITEMS)
    return Batch(*tf.train.batch(
        [standardize(image)] + rest, batch_size, num_threads=1,
        capacity=4 * batch_size, allow_smaller_final_batch=True))


def standardize(image):
  """uint8 [H, W, 3] -> float32 in [-1, 1], as for the published test split."""
  return (tf.cast(image, tf.float32) - 127.5) / 127.5


def augment(image):
  """The published training augmentation.

  Args:
    image: uint8 [H, W, 3].

  Returns:
    float32 [H, W, 3] in [-1, 1].
  """
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
