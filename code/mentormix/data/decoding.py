"""TFRecords -> decoded images, in memory or through tf-slim's provider."""
import contextlib
import functools
import itertools
import os

import numpy as np

from mentormix import runtime
from mentormix.data import datasets
from mentormix.messages import UserError
from mentormix.runtime import slim, tf

_CHUNK = 200  # Records checked or decoded at a time: they fit into a cache.


def slim_dataset(dataset, split, shards, num_samples):
  """The split as a tf-slim dataset.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    shards: its `Shard`s.
    num_samples: how many records they hold, without the skipped ones.

  Returns:
    A `slim.dataset.Dataset` with the items image, uint8 [H, W, 3]; label,
    int64 []; clean_label, int64 [], UNKNOWN_LABEL where the record has none;
    source_id, string [], empty where the record has none.
  """
  label_key = dataset.label_key(split)
  scalar = lambda **kwargs: tf.FixedLenFeature([1], tf.int64, **kwargs)
  keys_to_features = {
      datasets.IMAGE: tf.FixedLenFeature([], tf.string),
      label_key: scalar(),
      datasets.CLEAN_LABEL: scalar(default_value=[datasets.UNKNOWN_LABEL]),
      datasets.SOURCE_ID: tf.FixedLenFeature([], tf.string, default_value=''),
  }
  tfexample = slim.tfexample_decoder
  shape = [dataset.image_size, dataset.image_size, 3]
  # It decodes JPEG, too. slim's own handler would reshape 16 x 64 to 32 x 32.
  image = lambda values: tf.ensure_shape(
      tf.image.decode_png(values[datasets.IMAGE], channels=3), shape)
  items_to_handlers = {
      'image': tfexample.ItemHandlerCallback([datasets.IMAGE], image),
      'label': tfexample.Tensor(label_key, shape=[]),
      'clean_label': tfexample.Tensor(datasets.CLEAN_LABEL, shape=[]),
      'source_id': tfexample.Tensor(datasets.SOURCE_ID, shape=[]),
  }
  # The keys that TFRecordReader gives to the records.
  skipped = [f'{os.path.abspath(shard.path)}:{offset}'
             for shard in shards for offset in sorted(shard.skipped)]
  return slim.dataset.Dataset(
      data_sources=[os.path.abspath(shard.path) for shard in shards],
      reader=(functools.partial(_SkippingReader, skipped) if skipped
              else tf.TFRecordReader),
      decoder=tfexample.TFExampleDecoder(keys_to_features, items_to_handlers),
      num_samples=num_samples,
      items_to_descriptions={},
      num_classes=dataset.num_classes)


class _SkippingReader:
  """A tf.TFRecordReader, as tf-slim uses it, that skips some records."""

  def __init__(self, skipped):
    self._skipped = tf.constant(skipped)  # Keys of records.
    self._reader = tf.TFRecordReader()

  def read(self, queue):
    """(key, record) of the next record, from a queue of paths."""
    return tf.while_loop(
        lambda key, _: tf.reduce_any(tf.equal(key, self._skipped)),
        lambda *_: self._reader.read(queue), self._reader.read(queue))


def decode(dataset, split, shards, num_samples):
  """All records of a split, decoded.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    shards: its `Shard`s.
    num_samples: N, how many records they hold, without the skipped ones.

  Returns:
    ITEM -> array for each of `ITEMS`: image uint8 [N, H, W, 3]; label and
    clean_label int64 [N]; source_id [N] of bytes.

  Raises:
    UserError: an image cannot be decoded or is of another size; the line names
      the file and the record.
  """
  shape = [num_samples, dataset.image_size, dataset.image_size, 3]
  arrays = {'image': np.empty(shape, np.uint8),
            'label': np.empty(num_samples, np.int64),
            'clean_label': np.empty(num_samples, np.int64),
            'source_id': np.empty(num_samples, object)}
  done = 0
  for values in _decoded(dataset, split, shards):
    for item, value in zip(datasets.ITEMS, values):
      arrays[item][done:done + len(value)] = value
    done += len(value)
  return arrays


def check_images(dataset, split, shards):
  """Raises UserError for the first record that cannot be decoded, if any."""
  for _ in _decoded(dataset, split, shards):
    pass


def _decoded(dataset, split, shards):
  """Yields the values of `ITEMS` for up to `_CHUNK` records at a time."""
  with decoder(dataset, split) as run:
    for shard in shards:
      for chunk in chunks(datasets.good_records(shard)):
        indices, records = zip(*chunk)
        try:
          values = run(records)
        except tf.errors.InvalidArgumentError:
          for index, fault in zip(indices, undecodable(dataset, records, run)):
            if fault:
              raise bad_record(shard.path, index, fault)
          raise
        yield values


@contextlib.contextmanager
def decoder(dataset, split):
  """Yields a function: list of records -> arrays [N, ...], one per `ITEMS`."""
  with tf.Graph().as_default(), tf.device('/cpu:0'), \
      tf.Session(config=runtime.session_config()) as session:
    chunk = tf.placeholder(tf.string, [None])
    example = slim_dataset(dataset, split, [], 0).decoder
    decoded = tf.map_fn(
        lambda record: example.decode(record, list(datasets.ITEMS)), chunk,
        dtype=[tf.uint8, tf.int64, tf.int64, tf.string], parallel_iterations=32)
    yield lambda values: session.run(decoded, {chunk: values})


def undecodable(dataset, records, run):
  """Why each record cannot be decoded by `run`; None where it can."""
  if not records:
    return []
  try:
    run(records)
    return [None] * len(records)
  except tf.errors.InvalidArgumentError as error:
    if len(records) > 1:
      return [fault for record in records
              for fault in undecodable(dataset, [record], run)]
    size = dataset.image_size
    return [f'has an image that cannot be decoded as {size} x {size} pixels '
            f'({runtime.reason(error)})']


def chunks(items):
  """Yields lists of up to `_CHUNK` items."""
  items = iter(items)
  return iter(lambda: list(itertools.islice(items, _CHUNK)), [])


def bad_record(path, index, fault):
  """The UserError for a record that can be read and is not a valid example."""
  return UserError(
      f'{path}: record {index} {fault}; make the file again, or let training '
      'and evaluation skip such records: --max_bad_records')
