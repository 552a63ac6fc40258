"""The data sets: their names, their files on disk and what a record holds.

    <data_dir>/<name>_train-*     the noisy training set
    <data_dir>/<name>_test-*      the clean test set

Every file is a TFRecord of tf.Example (the published schema):

    image/encoded            PNG bytes, [H, W, 3]
    image/format             b'png'
    image/class/label        [1] int64, the label given: noisy in a training set
    image/class/fine_label   [1] int64, cifar100 only: the clean fine label
    image/class/clean_label  [1] int64, added here: the clean label; absent
                             where it is not known, as in sets prepared
                             elsewhere
    image/source_id          added here: which image this is: its index in the
                             archive, or its path in the folder it came from

A custom data set has a noise.json beside its files, which gives its name, its
number of classes and its image size.
"""
import contextlib
import functools
import itertools
import os
import re
import struct
import typing

import numpy as np

from mentormix import archives
from mentormix import noise
from mentormix import runtime
from mentormix.command import log
from mentormix.command import UserError
from mentormix.runtime import slim
from mentormix.runtime import tf

IMAGE = 'image/encoded'
FORMAT = 'image/format'
LABEL = 'image/class/label'
FINE_LABEL = 'image/class/fine_label'
CLEAN_LABEL = 'image/class/clean_label'
SOURCE_ID = 'image/source_id'

ITEMS = ('image', 'label', 'clean_label', 'source_id')  # Of a decoded record.
UNKNOWN_LABEL = -1  # What a record without a clean label decodes to.

_CHUNK = 200  # Records checked or decoded at a time: they fit into a cache.
_BUFFER = 1 << 16  # Bytes.
_FRAME = 16  # Bytes around a record: its length and two checksums.
_MOST_NAMED = 10  # Bad records, or missing files.
_SHARD = re.compile(r'(.*?)(?:-(\d+)-of-(\d+))?$', re.DOTALL)


class Dataset(typing.NamedTuple):
  """A data set by name."""
  name: str  # As on the command line and in the file names.
  num_classes: int  # K.
  image_size: int  # Height and width in pixels.
  test_label: str  # The feature that the test split is scored on.

  def label_key(self, split):
    return self.test_label if split == 'test' else LABEL


class Shard(typing.NamedTuple):
  """A TFRecord file of a data set, and which of its records to skip."""
  path: str
  skipped: typing.FrozenSet[int] = frozenset()  # Their offsets in bytes.


DATASETS = {
    name: Dataset(name, num_classes, archives.IMAGE_SIZE,
                  FINE_LABEL if name == 'cifar100' else LABEL)
    for name, num_classes in archives.NUM_CLASSES.items()}


def get(name, data_dir=None):
  """The `Dataset` called `name`.

  Args:
    name: a key of `DATASETS`, or the name of a custom set.
    data_dir: where the noise.json of a custom set is.

  Raises:
    UserError: `name` is neither; the line names the known ones.
  """
  if name in DATASETS:
    return DATASETS[name]
  facts = noise.read_facts(data_dir) if data_dir else None
  if not facts or facts.get('dataset_name') != name:
    known = ', '.join(sorted(DATASETS))
    here = f', here {facts.get("dataset_name")}' if facts else ''
    raise UserError(
        f'--dataset_name={name} is unknown; known are {known}, and a custom '
        f'set by the name in the {noise.FACTS_FILE} of its --data_dir{here}')
  num_classes, size = facts.get('num_classes'), facts.get('image_size')
  if not (isinstance(num_classes, int) and num_classes >= 2
          and isinstance(size, int) and size >= 1):
    raise UserError(f'{os.path.join(data_dir, noise.FACTS_FILE)} lacks '
                    'num_classes or image_size; make the data set again')
  return Dataset(name, num_classes, size, LABEL)


def find_files(dataset, split, data_dir):
  """Sorted paths of the files of one split.

  Raises:
    UserError: `data_dir` is missing, empty or of another data set, or some of
      the files are missing or of another preparation.
  """
  prefix = f'{dataset.name}_{split}-'
  if not os.path.isdir(data_dir):
    raise UserError(f'--data_dir={data_dir} is not a directory; make it with '
                    f'code/prepare_data.py --dataset_name={dataset.name}')
  names = sorted(n for n in os.listdir(data_dir) if not n.startswith('.'))
  files = [os.path.join(data_dir, n) for n in names if n.startswith(prefix)]
  if not files:
    raise UserError(
        f'--data_dir={data_dir} has no file {prefix}*; it holds '
        f'{", ".join(names[:3]) or "nothing"}; check --data_dir, '
        '--dataset_name and the split')
  _check_complete(files)
  return files


def _check_complete(files):
  """Raises UserError where names like -00003-of-00010 show that some lack."""
  directory = os.path.dirname(files[0])
  names = {}  # Total in the name of a file, or None -> one such name.
  numbers = set()
  for path in files:
    stem, number, total = _SHARD.match(os.path.basename(path)).groups()
    total = total and int(total)
    names.setdefault(total, os.path.basename(path))
    numbers.add(number and int(number))
  if len(names) > 1:
    raise UserError(f'{directory}: {" and ".join(sorted(names.values())[:2])} '
                    'are parts of different sets; move what does not belong '
                    'there')
  if total is None:
    return
  # Not all numbers: the total is whatever a name says.
  missing = [n for n in range(min(total, len(numbers) + _MOST_NAMED + 1))
             if n not in numbers]
  if missing:
    listed = ', '.join(f'{stem}-{n:05d}-of-{total:05d}'
                       for n in missing[:_MOST_NAMED])
    more = ' and more' if len(missing) > _MOST_NAMED else ''
    raise UserError(f'{directory}: files are missing: {listed}{more}; copy or '
                    'make them again')
  if len(files) != total:
    raise UserError(f'{directory}: {len(files)} files are named as parts of '
                    f'{total}; move what does not belong there')


def encode_example(png, label, clean_label=None, fine_label=None,
                   source_id=None):
  """One record in the published schema.

  Args:
    png: bytes of the encoded image.
    label: the label given, an int.
    clean_label: the true label, an int; None where it is not known.
    fine_label: for cifar100, the true fine label.
    source_id: which image this is, a string.

  Returns:
    Bytes, the same for the same arguments whatever the protobuf version.
  """
  integer = lambda x: tf.train.Feature(
      int64_list=tf.train.Int64List(value=[int(x)]))
  string = lambda x: tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[x]))
  feature = {IMAGE: string(png), FORMAT: string(b'png'), LABEL: integer(label)}
  if clean_label is not None:
    feature[CLEAN_LABEL] = integer(clean_label)
  if fine_label is not None:
    feature[FINE_LABEL] = integer(fine_label)
  if source_id is not None:
    feature[SOURCE_ID] = string(source_id.encode('utf-8'))
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString(deterministic=True)


# Files -> records -> decoded examples.


def read_records(path):
  """Yields (offset in bytes, record) for each record of a file.

  Raises:
    UserError: the file cannot be read to its end; the line names it and the
      record at which the damage begins.
  """
  index = -1
  try:
    pairs = zip(_offsets(path), tf.python_io.tf_record_iterator(path))
    for index, pair in enumerate(pairs):
      yield pair
  except (EOFError, OSError, tf.errors.OpError) as error:
    raise UserError(
        f'{path}: record {index + 1} cannot be read ({runtime.reason(error)}), '
        'nor can what follows it; make the file again') from error


def _offsets(path):
  """Yields where each record begins; each ends where the next one begins.

  TensorFlow checks the checksums. But it takes a file that ends within the
  length of a record to be complete, and allocates whatever memory a length asks
  for.

  Raises:
    EOFError: a record would end beyond the end of the file.
  """
  size = os.path.getsize(path)
  offset = 0
  with open(path, 'rb', _BUFFER) as f:
    while offset < size:
      f.seek(offset)
      end = offset + _FRAME + int.from_bytes(f.read(8), 'little')
      if end > size:
        raise EOFError('the file is cut off, or is not a TFRecord file')
      yield offset
      offset = end


def good_records(shard):
  """Yields (index in the file, record) for the records that are not skipped."""
  for index, (offset, record) in enumerate(read_records(shard.path)):
    if offset not in shard.skipped:
      yield index, record


def has_clean_labels(shards):
  """Whether the records have clean labels; the first one decides."""
  _, record = next(itertools.chain.from_iterable(map(good_records, shards)))
  return CLEAN_LABEL in tf.train.Example.FromString(record).features.feature


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
      IMAGE: tf.FixedLenFeature([], tf.string),
      label_key: scalar(),
      CLEAN_LABEL: scalar(default_value=[UNKNOWN_LABEL]),
      SOURCE_ID: tf.FixedLenFeature([], tf.string, default_value=''),
  }
  tfexample = slim.tfexample_decoder
  shape = [dataset.image_size, dataset.image_size, 3]
  # It decodes JPEG, too. slim's own handler would reshape 16 x 64 to 32 x 32.
  image = lambda values: tf.ensure_shape(
      tf.image.decode_png(values[IMAGE], channels=3), shape)
  items_to_handlers = {
      'image': tfexample.ItemHandlerCallback([IMAGE], image),
      'label': tfexample.Tensor(label_key, shape=[]),
      'clean_label': tfexample.Tensor(CLEAN_LABEL, shape=[]),
      'source_id': tfexample.Tensor(SOURCE_ID, shape=[]),
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
      items_to_descriptions={
          'image': 'the picture', 'label': 'the label given',
          'clean_label': 'the true label, where known',
          'source_id': 'which image it is, where known'},
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
    for item, value in zip(ITEMS, values):
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
      for chunk in chunks(good_records(shard)):
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
        lambda record: example.decode(record, list(ITEMS)), chunk,
        dtype=[tf.uint8, tf.int64, tf.int64, tf.string], parallel_iterations=32)
    yield lambda values: session.run(decoded, {chunk: values})


def undecodable(dataset, records, run):
  """Why each record of a list cannot be decoded; None where it can.

  Args:
    dataset: a `Dataset`.
    records: a list of bytes.
    run: decodes records, from `decoder`.
  """
  if not records:
    return []
  try:
    run(records)
    return [None] * len(records)
  except tf.errors.InvalidArgumentError as error:
    if len(records) == 1:
      size = dataset.image_size
      return [f'has an image that cannot be decoded as {size} x {size} pixels '
              f'({runtime.reason(error)})']
  half = len(records) // 2
  return (undecodable(dataset, records[:half], run)
          + undecodable(dataset, records[half:], run))


def chunks(items):
  """Yields lists of up to `_CHUNK` items."""
  items = iter(items)
  return iter(lambda: list(itertools.islice(items, _CHUNK)), [])


def bad_record(path, index, fault):
  """The UserError for a record that can be read and is not a valid example."""
  return UserError(
      f'{path}: record {index} {fault}; make the file again, or let training '
      'and evaluation skip such records: --max_bad_records')


# The check before anything starts.


def check_files(dataset, split, paths, max_bad_records=0):
  """Reads and checks every record once.

  The epoch, the learning rate schedule and the evaluation pass depend on the
  number of records; and it is better to find a bad file now than in hour ten.

  A bad record is one that can be read and is not a valid example of the data
  set. It can be skipped. A file that is damaged, by its checksums or its size,
  is always an error: nothing after the damage can be read, so nobody knows how
  many records are lost.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    paths: of the TFRecords of the split.
    max_bad_records: how many bad records may be skipped. Above 0, images are
      decoded, too, to find those which cannot be.

  Returns:
    (shards, count): a `Shard` for each path, and how many records they hold
    without the skipped ones.

  Raises:
    UserError: a file is damaged or empty, or there are more bad records than
      allowed; the line names the file and the record.
  """
  shards, lines, count = [], [], 0
  with (decoder(dataset, split) if max_bad_records
        else contextlib.nullcontext()) as run:
    for path in paths:
      first, skipped = 0, set()
      for chunk in chunks(read_records(path)):
        faults = _faults(dataset, split, [record for _, record in chunk], run)
        for index, fault in enumerate(faults):
          if fault and not max_bad_records:
            raise bad_record(path, first + index, fault)
          if fault:
            skipped.add(chunk[index][0])
            lines.append(f'{path}: record {first + index} {fault}')
        first += len(chunk)
      if not first:
        raise UserError(f'{path} holds no record; make it again')
      count += first - len(skipped)
      shards.append(Shard(path, frozenset(skipped)))
  if lines:
    _report(lines, count, max_bad_records)
  return shards, count


def _faults(dataset, split, records, run):
  """What is wrong with each record of a list; None where it is good.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    records: a list of bytes.
    run: decodes records, from `decoder`; None to leave images undecoded.
  """
  faults = [_fault(dataset, split, record) for record in records]
  if not run:
    return faults
  rest = iter(undecodable(dataset, [
      record for record, fault in zip(records, faults) if not fault], run))
  return [fault or next(rest) for fault in faults]


def _report(lines, count, max_bad_records):
  """Logs the bad records; raises UserError if they are too many.

  Args:
    lines: one for each bad record.
    count: how many records are good.
    max_bad_records: how many may be bad.
  """
  for line in lines[:_MOST_NAMED]:
    log(f'bad: {line}')
  if len(lines) > _MOST_NAMED:
    log(f'bad: and {len(lines) - _MOST_NAMED} more')
  total = count + len(lines)
  if len(lines) > max_bad_records:
    raise UserError(
        f'{len(lines)} bad records of {total} are more than '
        f'--max_bad_records={max_bad_records}; make the files again, or allow '
        f'more; the first: {lines[0]}')
  if not count:
    raise UserError('none of the records is good; make the files again; the '
                    f'first: {lines[0]}')
  log(f'{len(lines)} bad records of {total} are skipped')


def _fault(dataset, split, record):
  """What is wrong with a record as an example of the data set, or None.

  The image is not decoded; only the header of a PNG is read, for its size.
  """
  try:
    example = tf.train.Example.FromString(record)
    example.DiscardUnknownFields()
  except Exception:  # protobuf has one exception class per implementation.
    return 'is not a tf.Example'
  # TensorFlow's own parser is stricter, and where it quotes bytes that are not
  # text, 1.15 ends the process and 2.x raises another error.
  if example.ByteSize() != len(record):
    return 'is not a tf.Example as TensorFlow writes it'
  feature = example.features.feature
  label_key = dataset.label_key(split)
  image = feature[IMAGE].bytes_list.value
  label = feature[label_key].int64_list.value
  if len(image) != 1 or len(label) != 1:
    return (f'lacks {IMAGE} or {label_key}, or has several; it is not of data '
            f'set {dataset.name}')
  num_classes = dataset.num_classes
  if not 0 <= label[0] < num_classes:
    return (f'has label {label[0]}; --dataset_name={dataset.name} has classes '
            f'0 to {num_classes - 1}')
  if CLEAN_LABEL in feature:
    clean = feature[CLEAN_LABEL].int64_list.value
    if len(clean) != 1 or not UNKNOWN_LABEL <= clean[0] < num_classes:
      return (f'has {CLEAN_LABEL} {list(clean)[:2]}; --dataset_name='
              f'{dataset.name} has classes 0 to {num_classes - 1}')
  if SOURCE_ID in feature and len(feature[SOURCE_ID].bytes_list.value) != 1:
    return f'does not have exactly one string as {SOURCE_ID}'
  return _png_fault(dataset, image[0])


def _png_fault(dataset, image):
  """What is wrong with the size of an image, or None; None if it is not a PNG.

  Args:
    dataset: a `Dataset`.
    image: the encoded bytes.
  """
  if not image.startswith(archives.PNG_SIGNATURE):
    return None
  if len(image) < 24:
    return 'has an image that is cut off'
  width, height = struct.unpack('>II', image[16:24])
  size = dataset.image_size
  if (width, height) != (size, size):
    return (f'has an image of {width} x {height} pixels; --dataset_name='
            f'{dataset.name} has {size} x {size}')
  return None
