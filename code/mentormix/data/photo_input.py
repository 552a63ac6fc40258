"""Photographs of any size: records -> decoded, cropped and resized batches.

Training reads the records in the random order in which they were written, from
several files at a time, through a queue that shuffles them again. Several
threads decode; each decodes only the part of a JPEG that its crop needs.
Evaluation reads every image exactly once, in order. A recipe names the crops
and distortions of a publication. B is the batch size, S the image size.
"""
import typing

from mentormix import runtime
from mentormix.data import augmentation
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.runtime import tf

# A queue holds so many encoded images, or half an epoch if that is smaller.
SHUFFLED = 4096
_READ_AT_ONCE = 16  # Records.
_BATCHES_AHEAD = 4  # Decoded, in the queue before the step.
_WHOLE = (((0.0, 0.0, 1.0, 1.0),),)  # The box that is the whole image.


class Recipe(typing.NamedTuple):
  """How images are cropped, resized and distorted.

  A training crop is a random box of the image, resized to S; or, if `resized`
  is given, a random square of side S of the image resized to that square.
  """
  area: typing.Tuple[float, float] = (0.05, 1.0)  # Of a random box.
  aspect: typing.Tuple[float, float] = (3 / 4, 4 / 3)  # Its width / height.
  resized: typing.Optional[float] = None  # Side of the resized image, over S.
  brightness: float = 0.0  # Largest change, of 1.
  saturation: typing.Tuple[float, float] = (1.0, 1.0)  # Range of the factor.
  central: float = 0.875  # Side of the test crop, over that of the image.
  short_side: typing.Optional[float] = None  # Resized to, over S, for tests.
  small: bool = False  # The whole image as a small one; the above is not used.


RECIPES = {
    # A random box of 5 to 100% of the image, brightness and saturation; tests:
    # the central 87.5% (slim, but not hue and contrast, and in one order).
    'inception': Recipe(brightness=32 / 255, saturation=(0.5, 1.5)),
    # The whole image resized to a square (bicubic, with antialiasing), then what
    # the published code does to CIFAR; tests: the whole image.
    'cifar': Recipe(small=True),
    # The image resized to a square, 320 for a size of 299, and a random crop of
    # it; tests: the centre (DivideMix and others on WebVision).
    'resize_crop': Recipe(resized=320 / 299),
    # A random box of 5 to 100% of the image; tests: the short side resized to
    # 256 for a size of 224, and the centre (NCR, CVPR 2022).
    'ncr': Recipe(short_side=256 / 224),
}


def train_batch(shards, num_examples, batch_size, image_size, recipe,
                num_readers=4, num_threads=4, device=''):
  """An endless, shuffled, augmented stream of batches.

  Args:
    shards: the `datasets.Shard`s of the training split.
    num_examples: how many records they hold.
    batch_size: B.
    image_size: S, in pixels.
    recipe: a key of `RECIPES`.
    num_readers: files that are read at a time.
    num_threads: threads that decode and augment.
    device: of this worker.

  Returns:
    An `input_pipeline.Batch` with images [B, S, S, 3].
  """
  with tf.device(device + '/cpu:0'), tf.name_scope('input'), \
      runtime.without_xla():
    files = tf.train.string_input_producer(
        [shard.path for shard in shards], shuffle=True)
    kept = max(batch_size, min(SHUFFLED, num_examples // 2))
    records = tf.RandomShuffleQueue(kept + 2 * batch_size, kept, [tf.string],
                                    [[]])
    tf.train.add_queue_runner(tf.train.QueueRunner(records, [
        records.enqueue_many(
            [tf.TFRecordReader().read_up_to(files, _READ_AT_ONCE)[1]])
        for _ in range(min(num_readers, len(shards)))]))
    # A thread makes a whole batch: queues of single images are slower.
    encoded, *rest = parse(records.dequeue_many(batch_size), datasets.LABEL)
    images = tf.map_fn(
        lambda x: train_image(x, image_size, RECIPES[recipe]), encoded,
        dtype=tf.float32, parallel_iterations=1)
    batch = [images] + rest
    batches = tf.FIFOQueue(
        _BATCHES_AHEAD, [x.dtype for x in batch],
        [[batch_size] + x.shape.as_list()[1:] for x in batch])
    tf.train.add_queue_runner(tf.train.QueueRunner(
        batches, [batches.enqueue(batch)] * num_threads))
    return input_pipeline.Batch(*batches.dequeue())


def eval_batch(dataset, split, shards, num_examples, batch_size, image_size,
               recipe, num_threads=1):
  """One pass in file order; then tf.errors.OutOfRangeError.

  The last batch holds what is left. Local variables count the pass.

  Args:
    dataset: a `datasets.Dataset`.
    split: 'train' or 'test'.
    shards: the `datasets.Shard`s of the split.
    num_examples: how many records they hold.
    batch_size: B.
    image_size: S, in pixels.
    recipe: a key of `RECIPES`.
    num_threads: threads that decode; with more than one, images of neighbouring
      records may change places.

  Returns:
    An `input_pipeline.Batch` with a first dimension of at most B.
  """
  del num_examples  # As input_pipeline.eval_batch has it.
  with tf.device('/cpu:0'), tf.name_scope('input'):
    files = tf.train.string_input_producer(
        [shard.path for shard in shards], num_epochs=1, shuffle=False)
    _, record = tf.TFRecordReader().read(files)
    encoded, *rest = parse(record[tf.newaxis], dataset.label_key(split))
    image = test_image(encoded[0], image_size, RECIPES[recipe])
    return input_pipeline.Batch(*tf.train.batch(
        [image] + [x[0] for x in rest], batch_size, num_threads=num_threads,
        capacity=_BATCHES_AHEAD * batch_size, allow_smaller_final_batch=True))


def parse(records, label_key):
  """Parses records.

  Args:
    records: serialized examples, [n].
    label_key: of the label, as in `datasets`.

  Returns:
    Encoded images, labels, clean labels and source ids, all [n].
  """
  features = tf.parse_example(records, {
      datasets.IMAGE: tf.FixedLenFeature([], tf.string),
      label_key: tf.FixedLenFeature([1], tf.int64),
      datasets.CLEAN_LABEL: tf.FixedLenFeature(
          [1], tf.int64, [datasets.UNKNOWN_LABEL]),
      datasets.SOURCE_ID: tf.FixedLenFeature([], tf.string, '')})
  return (features[datasets.IMAGE], features[label_key][:, 0],
          features[datasets.CLEAN_LABEL][:, 0], features[datasets.SOURCE_ID])


def train_image(encoded, image_size, recipe):
  """Decodes an image with the crop and the distortions of a recipe.

  Args:
    encoded: the bytes of a JPEG, a scalar.
    image_size: S, in pixels.
    recipe: a `Recipe`.

  Returns:
    float32 [S, S, 3] in [-1, 1].
  """
  if recipe.small:
    return augmentation.augment(_small(encoded, image_size),
                                augmentation.draw(1, _Random))[0]
  shape = tf.image.extract_jpeg_shape(encoded)
  if recipe.resized:
    side = int(round(recipe.resized * image_size))
    # The part of the image that the square crop of its resized form shows.
    start = tf.random.uniform([2], maxval=side - image_size + 1, dtype=tf.int32)
    share = tf.cast(shape[:2], tf.float32) / side
    begin = tf.cast(tf.cast(start, tf.float32) * share, tf.int32)
    size = tf.maximum(tf.cast(image_size * share, tf.int32), 1)
  else:
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape, _WHOLE, min_object_covered=0.1, area_range=recipe.area,
        aspect_ratio_range=recipe.aspect, max_attempts=100,
        use_image_if_no_bounding_boxes=True)
    begin, size = begin[:2], size[:2]
  image = _decode(encoded, begin, size, image_size)
  image = tf.image.random_flip_left_right(image)
  if recipe.brightness:
    image = tf.image.random_brightness(image, recipe.brightness)
  if recipe.saturation != (1.0, 1.0):
    image = tf.image.random_saturation(image, *recipe.saturation)
  return 2.0 * tf.clip_by_value(image, 0.0, 1.0) - 1.0


def test_image(encoded, image_size, recipe):
  """Decodes the test crop of an image; arguments as for `train_image`."""
  if recipe.small:
    return 2.0 * tf.cast(_small(encoded, image_size)[0], tf.float32) / 255 - 1.0
  shape = tf.image.extract_jpeg_shape(encoded)[:2]
  sides = tf.cast(shape, tf.float32)
  if recipe.resized:  # The centre of the image resized to a square.
    size = sides / recipe.resized
  elif recipe.short_side:  # A square.
    size = tf.reduce_min(sides) / recipe.short_side * tf.ones([2])
  else:
    size = sides * recipe.central
  size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
  image = _decode(encoded, (shape - size) // 2, size, image_size)
  return 2.0 * image - 1.0


class _Random:
  """What `augmentation.draw` draws from: numbers of the graph's seed."""

  @staticmethod
  def uniform(shape, low, high):
    return tf.random.uniform(shape, low, high)

  @staticmethod
  def integers(shape, low, high):
    return tf.random.uniform(shape, low, high + 1, tf.int32)


def _small(encoded, image_size):
  """A whole JPEG, resized to uint8 [1, S, S, 3]."""
  image = tf.cast(tf.image.decode_jpeg(
      encoded, channels=3, dct_method='INTEGER_ACCURATE'), tf.float32)
  scale = image_size / tf.cast(tf.shape(image)[:2], tf.float32)
  image = tf.raw_ops.ScaleAndTranslate(  # As Pillow does, to a grey level.
      images=image[tf.newaxis], size=2 * [image_size], scale=scale,
      translation=[0.0, 0.0], kernel_type='keyscubic', antialias=True)
  return tf.saturate_cast(tf.round(image), tf.uint8)


def _decode(encoded, begin, size, image_size):
  """The part of a JPEG, resized to [S, S, 3], float32 in [0, 1]."""
  image = tf.image.decode_and_crop_jpeg(
      encoded, tf.concat([begin, size], axis=0), channels=3)
  image = tf.image.resize_bilinear(
      tf.cast(image, tf.float32)[tf.newaxis] / 255.0, [image_size, image_size],
      half_pixel_centers=True)[0]
  return tf.ensure_shape(image, [image_size, image_size, 3])
