"""The data sets: their names, their files on disk and what a record holds.

    <data_dir>/<name>_train-*     the noisy training set
    <data_dir>/<name>_test-*      the clean test set

Every file is a TFRecord of tf.Example (the published schema):

    image/encoded            PNG bytes, [H, W, 3]
    image/format             b'png'
    image/class/label        [1] int64, the label given: noisy in a training set
    image/class/fine_label   [1] int64, cifar100 only: the clean fine label
    image/class/clean_label  [1] int64, ours: the clean label; where it is not
                             known, as in sets prepared elsewhere, it is absent
    image/source_id          ours: which image this is: its index in the
                             archive, or its path in the folder it came from

A set of one's own has a noise.json beside its files, which gives its name, its
number of classes and its image size.
"""
import collections
import contextlib
import itertools
import os
import re
import struct

import numpy as np

from mentormix import archives
from mentormix import noise
from mentormix import records
from mentormix import runtime
from mentormix.command import log
from mentormix.command import UserError
from mentormix.files import replaced
from mentormix.runtime import slim
from mentormix.runtime import tf

IMAGE = 'image/encoded'
FORMAT = 'image/format'
LABEL = 'image/class/label'
FINE_LABEL = 'image/class/fine_label'
CLEAN_LABEL = 'image/class/clean_label'
SOURCE_ID = 'image/source_id'

ITEMS = ('image', 'label', 'clean_label', 'source_id')  # Of a decoded record.
GOOD_RECORDS = 'good_records'  # A folder, see --max_bad_records.
UNKNOWN_LABEL = -1  # What a record without a clean label decodes to.

_CHUNK = 1000  # Records decoded at a time.
_PIECE = 1 << 20  # Bytes copied at a time.
_MOST_NAMED = 10  # Bad records, or missing files.
_SHARD = re.compile(r'(.*?)(?:-(\d+)-of-(\d+))?$', re.DOTALL)


class Dataset(collections.namedtuple(
    'Dataset', 'name num_classes image_size test_label')):
  """A data set by name.

  Attributes:
    name: as on the command line and in the file names.
    num_classes: K.
    image_size: height and width in pixels.
    test_label: the feature that the test split is scored on.
  """
  __slots__ = ()

  def label_key(self, split):
    return self.test_label if split == 'test' else LABEL


DATASETS = {
    name: Dataset(name, num_classes, archives.IMAGE_SIZE,
                  FINE_LABEL if name == 'cifar100' else LABEL)
    for name, num_classes in archives.NUM_CLASSES.items()}


def get(name, data_dir=None):
  """The `Dataset` called `name`.

  Args:
    name: a key of `DATASETS`, or the name of a set of one's own.
    data_dir: where the latter has its noise.json.

  Raises:
    UserError: `name` is neither; the line names the known ones.
  """
  if name in DATASETS:
    return DATASETS[name]
  facts = noise.read_facts(data_dir) if data_dir else None
  if not facts or facts.get('dataset_name') != name:
    raise UserError(
        '--dataset_name=%s is unknown; known are %s, and a set of your own by '
        'the name in the %s of its --data_dir%s' % (
            name, ', '.join(sorted(DATASETS)), noise.FACTS_FILE,
            ', here %s' % facts.get('dataset_name') if facts else ''))
  num_classes, size = facts.get('num_classes'), facts.get('image_size')
  if not (isinstance(num_classes, int) and num_classes >= 2
          and isinstance(size, int) and size >= 1):
    raise UserError('%s lacks num_classes or image_size; make the data set '
                    'again' % os.path.join(data_dir, noise.FACTS_FILE))
  return Dataset(name, num_classes, size, LABEL)


def find_files(dataset, split, data_dir):
  """Sorted paths of the files of one split.

  Raises:
    UserError: `data_dir` is missing, empty or of another data set, or some of
      the files are missing or of another preparation.
  """
  prefix = '%s_%s-' % (dataset.name, split)
  if not os.path.isdir(data_dir):
    raise UserError('--data_dir=%s is not a directory; make it with '
                    'code/prepare_data.py --dataset_name=%s'
                    % (data_dir, dataset.name))
  names = sorted(n for n in os.listdir(data_dir) if not n.startswith('.'))
  files = [os.path.join(data_dir, n) for n in names if n.startswith(prefix)]
  if not files:
    raise UserError(
        '--data_dir=%s has no file %s*; it holds %s; check --data_dir, '
        '--dataset_name and the split'
        % (data_dir, prefix, ', '.join(names[:3]) or 'nothing'))
  _check_complete(files)
  return files


def _check_complete(files):
  """Raises UserError where names like -00003-of-00010 say that some lack."""
  directory = os.path.dirname(files[0])
  names = {}  # How many files there should be, or None -> a file that says so.
  numbers = set()
  for path in files:
    stem, number, total = _SHARD.match(os.path.basename(path)).groups()
    total = total and int(total)
    names.setdefault(total, os.path.basename(path))
    numbers.add(number and int(number))
  if len(names) > 1:
    raise UserError(
        '%s: %s are parts of different sets; move what does not belong there'
        % (directory, ' and '.join(sorted(names.values())[:2])))
  if total is None:
    return
  # Not all numbers: the total is whatever a name says.
  missing = [n for n in range(min(total, len(numbers) + _MOST_NAMED + 1))
             if n not in numbers]
  if missing:
    raise UserError('%s: files are missing: %s%s; copy or make them again' % (
        directory, ', '.join('%s-%05d-of-%05d' % (stem, n, total)
                             for n in missing[:_MOST_NAMED]),
        ' and more' * (len(missing) > _MOST_NAMED)))
  if len(files) != total:
    raise UserError('%s: %d files are named as parts of %d; move what does not '
                    'belong there' % (directory, len(files), total))


def check_files(dataset, split, files, max_bad_records=0, directory=None):
  """Reads and checks every record once; leaves bad ones out, if that is wanted.

  An epoch, the learning rate and a whole evaluation pass rest on the number of
  records; and a damaged file is better found now than in hour ten.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    files: paths of the TFRecords of the split.
    max_bad_records: how many bad records may be left out. Above 0, images are
      decoded, too, so that one which cannot be is found.
    directory: where files that have bad records are written anew without them;
      it need not be there. Used where `max_bad_records` is above 0.

  Returns:
    (files, count): paths of files without bad records, and how many records
    they hold.

  Raises:
    UserError: a file is empty; or more records than allowed are damaged or of
      another data set; the line names the file and the record.
  """
  if max_bad_records:
    return _leave_out(dataset, split, files, max_bad_records, directory)
  count = 0
  for path in files:
    before = count
    for index, record in enumerate(_read(path)):
      fault = _fault(dataset, split, record)
      if fault:
        raise _bad_record(path, index, fault)
      count += 1
    if count == before:
      raise _empty(path)
  return files, count


def _read(path):
  """Yields the records of a file; raises UserError at one that is damaged."""
  for index, frame in enumerate(records.walk(path)):
    if frame.fault:
      raise _bad_record(path, index, _UNREADABLE % frame.fault)
  index = 0
  try:
    for record in tf.python_io.tf_record_iterator(path):
      yield record
      index += 1
  except tf.errors.OpError as error:
    raise _bad_record(path, index, _UNREADABLE % error.message)


_UNREADABLE = 'cannot be read (%s)'


def _bad_record(path, index, fault):
  return UserError(
      '%s: record %d %s; make the file again, or let training and evaluation '
      'leave such records out: --max_bad_records' % (path, index, fault))


def _empty(path):
  return UserError('%s holds no record; make it again' % path)


def _fault(dataset, split, record):
  """What is wrong with a record as an example of the data set, or None.

  The image is not decoded, but for its size in a PNG.
  """
  try:
    example = tf.train.Example.FromString(record)
    example.DiscardUnknownFields()
  except Exception:  # protobuf has one exception class per implementation.
    return 'is not a tf.Example'
  # TensorFlow's own parser is stricter, and where it quotes bytes that are no
  # text, 1.15 ends the process and 2.x raises another error.
  if example.ByteSize() != len(record):
    return 'is not a tf.Example as TensorFlow writes it'
  feature = example.features.feature
  label_key = dataset.label_key(split)
  image = feature[IMAGE].bytes_list.value
  label = feature[label_key].int64_list.value
  if len(image) != 1 or len(label) != 1:
    return ('lacks %s or %s, or has several; it is not of data set %s'
            % (IMAGE, label_key, dataset.name))
  if not 0 <= label[0] < dataset.num_classes:
    return ('has label %d; --dataset_name=%s has classes 0 to %d'
            % (label[0], dataset.name, dataset.num_classes - 1))
  if CLEAN_LABEL in feature:
    clean = feature[CLEAN_LABEL].int64_list.value
    if len(clean) != 1 or not UNKNOWN_LABEL <= clean[0] < dataset.num_classes:
      return ('has %s %s; --dataset_name=%s has classes 0 to %d' % (
          CLEAN_LABEL, list(clean)[:2], dataset.name, dataset.num_classes - 1))
  if SOURCE_ID in feature and len(feature[SOURCE_ID].bytes_list.value) != 1:
    return 'has not one string as %s' % SOURCE_ID
  if image[0].startswith(archives.PNG_SIGNATURE):
    if len(image[0]) < 24:
      return 'has an image that is cut off'
    size = struct.unpack('>II', image[0][16:24])
    if size != (dataset.image_size, dataset.image_size):
      return ('has an image of %d x %d pixels; --dataset_name=%s has %d x %d'
              % (size + (dataset.name,) + (dataset.image_size,) * 2))
  return None


def _leave_out(dataset, split, files, most, directory):
  """`check_files` for where bad records may be left out."""
  bad = {}  # path -> its bad frames.
  count = num_bad = 0
  with _decoder(dataset, split) as run:
    for path in files:
      index, bad[path] = -1, []
      for index, (frame, fault) in enumerate(
          _judge(dataset, split, path, run)):
        if not fault:
          count += 1
          continue
        num_bad += 1
        bad[path].append(frame)
        line = '%s: record %d %s' % (path, index, fault)
        if num_bad == 1:
          first = line
        if num_bad <= _MOST_NAMED:
          log('bad: %s' % line)
      if index < 0:
        raise _empty(path)
  if num_bad > _MOST_NAMED:
    log('bad: and %d more' % (num_bad - _MOST_NAMED))
  if num_bad > most:
    raise UserError('%d bad records of %d are more than --max_bad_records=%d; '
                    'make the files again, or allow more; the first: %s'
                    % (num_bad, num_bad + count, most, first))
  if not count:
    raise UserError('none of the records is good; make the files again; the '
                    'first: %s' % first)
  if num_bad:
    os.makedirs(directory, exist_ok=True)
    log('%d bad records of %d are left out; the files without them are in %s'
        % (num_bad, num_bad + count, directory))
  good = []
  for path in files:
    if bad[path]:
      path = _copy_without(path, bad[path], directory)
    if path:
      good.append(path)
  return good, count


def _judge(dataset, split, path, run):
  """Yields a `records.Frame` and its fault, or None, for each record.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    path: of the file.
    run: decodes records, from `_decoder`.
  """
  damaged = any(frame.fault for frame in records.walk(path))
  if not damaged:
    try:  # It knows about checksums, too, and is much faster.
      for _ in tf.python_io.tf_record_iterator(path):
        pass
    except tf.errors.OpError:
      damaged = True
  with open(path, 'rb') as f:
    for _, frames in _chunks(records.walk(path, check_data=damaged)):
      faults, good = [], []
      for frame in frames:
        if frame.fault:
          fault = _UNREADABLE % frame.fault
        else:
          good.append(records.read(f, frame))
          fault = _fault(dataset, split, good[-1])
          if fault:
            good.pop()
        faults.append(fault)
      undecodable = iter(_undecodable(dataset, good, run))
      for frame, fault in zip(frames, faults):
        yield frame, fault or next(undecodable)


def _undecodable(dataset, chunk, run):
  """Why each record of a list cannot be decoded; None where it can."""
  if not chunk:
    return []
  try:
    run(chunk)
    return [None] * len(chunk)
  except tf.errors.InvalidArgumentError as error:
    if len(chunk) == 1:
      size = dataset.image_size
      return ['has an image that cannot be decoded as %d x %d pixels (%s)'
              % (size, size, runtime.reason(error))]
  half = len(chunk) // 2
  return (_undecodable(dataset, chunk[:half], run)
          + _undecodable(dataset, chunk[half:], run))


def _copy_without(path, bad, directory):
  """Copies a file but for some frames.

  Args:
    path: of the file.
    bad: the `records.Frame`s that are left out, in order.
    directory: where the copy goes.

  Returns:
    Path of the copy; None if nothing is left.
  """
  size = os.path.getsize(path)
  if sum(frame.size for frame in bad) == size:
    return None
  copy = os.path.join(directory, os.path.basename(path))
  with open(path, 'rb') as source, replaced(copy, 'wb') as f:
    for frame in bad + [records.Frame(size, 0, None)]:
      for at in range(source.tell(), frame.offset, _PIECE):
        f.write(source.read(min(_PIECE, frame.offset - at)))
      source.seek(frame.offset + frame.size)
  return copy


def has_clean_labels(files):
  """Whether the records know their clean labels (the first one tells)."""
  record = next(tf.python_io.tf_record_iterator(files[0]))
  return CLEAN_LABEL in tf.train.Example.FromString(record).features.feature


def slim_dataset(dataset, split, files, num_samples):
  """The split as a tf-slim dataset.

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
  decode = slim.tfexample_decoder
  shape = [dataset.image_size, dataset.image_size, 3]
  # It decodes JPEG, too. slim's own handler would reshape 16 x 64 to 32 x 32.
  image = lambda values: tf.ensure_shape(
      tf.image.decode_png(values[IMAGE], channels=3), shape)
  items_to_handlers = {
      'image': decode.ItemHandlerCallback([IMAGE], image),
      'label': decode.Tensor(label_key, shape=[]),
      'clean_label': decode.Tensor(CLEAN_LABEL, shape=[]),
      'source_id': decode.Tensor(SOURCE_ID, shape=[]),
  }
  return slim.dataset.Dataset(
      data_sources=files,
      reader=tf.TFRecordReader,
      decoder=decode.TFExampleDecoder(keys_to_features, items_to_handlers),
      num_samples=num_samples,
      items_to_descriptions={
          'image': 'the picture', 'label': 'the label given',
          'clean_label': 'the true label, where known',
          'source_id': 'which image it is, where known'},
      num_classes=dataset.num_classes)


def decode(dataset, split, files, num_samples):
  """All records of a split, decoded.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    files: their paths.
    num_samples: N, how many records they hold.

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
  for values in _decoded(dataset, split, files):
    for item, value in zip(ITEMS, values):
      arrays[item][done:done + len(value)] = value
    done += len(value)
  return arrays


def check_images(dataset, split, files):
  """Raises UserError for the first record that cannot be decoded, if any."""
  for _ in _decoded(dataset, split, files):
    pass


def _decoded(dataset, split, files):
  """Yields the values of `ITEMS` for up to `_CHUNK` records at a time."""
  with _decoder(dataset, split) as run:
    for path in files:
      for first, chunk in _chunks(tf.python_io.tf_record_iterator(path)):
        try:
          values = run(chunk)
        except tf.errors.InvalidArgumentError:
          for index, fault in enumerate(_undecodable(dataset, chunk, run)):
            if fault:
              raise _bad_record(path, first + index, fault)
          raise
        yield values


@contextlib.contextmanager
def _decoder(dataset, split):
  """Yields a function: list of records -> arrays [N, ...], one per `ITEMS`."""
  with tf.Graph().as_default(), tf.device('/cpu:0'), \
      tf.Session(config=runtime.session_config()) as session:
    chunk = tf.placeholder(tf.string, [None])
    decoder = slim_dataset(dataset, split, [], 0).decoder
    decoded = tf.map_fn(
        lambda record: decoder.decode(record, list(ITEMS)), chunk,
        dtype=[tf.uint8, tf.int64, tf.int64, tf.string], parallel_iterations=32)
    yield lambda values: session.run(decoded, {chunk: values})


def _chunks(items):
  """Yields lists of up to `_CHUNK` items, each with the index of its first."""
  items = iter(items)
  for first in itertools.count(0, _CHUNK):
    chunk = list(itertools.islice(items, _CHUNK))
    if not chunk:
      return
    yield first, chunk


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
