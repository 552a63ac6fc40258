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
import itertools
import os
import struct

import numpy as np

from mentormix import archives
from mentormix import noise
from mentormix import runtime
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

_CHUNK = 1000  # Records decoded at a time.


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
    UserError: `data_dir` is missing, empty or of another data set.
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
  return files


def count_records(dataset, split, files):
  """Reads every record once, checks it, and returns how many there are.

  An epoch, the learning rate and a whole evaluation pass rest on this number;
  and a damaged file is better found now than in hour ten.

  Raises:
    UserError: a file or record is damaged, empty or of another data set; the
      line names the file and the record.
  """
  label_key = dataset.label_key(split)
  count = 0
  for path in files:
    in_file = 0
    try:
      for record in tf.python_io.tf_record_iterator(path):
        _check_record(dataset, label_key, record, path, in_file)
        in_file += 1
    except tf.errors.OpError as error:
      raise UserError('%s: record %d cannot be read (%s); the file is damaged, '
                      'make it again' % (path, in_file, error.message))
    if not in_file:
      raise UserError('%s holds no record; make it again' % path)
    count += in_file
  return count


def _check_record(dataset, label_key, record, path, index):
  """Raises UserError unless `record` is a training or test example."""
  def bad(what):
    return UserError('%s: record %d %s' % (path, index, what))

  try:
    feature = tf.train.Example.FromString(record).features.feature
  except Exception:  # protobuf has one exception class per implementation.
    raise bad('is not a tf.Example')
  image = feature[IMAGE].bytes_list.value
  label = feature[label_key].int64_list.value
  if len(image) != 1 or len(label) != 1:
    raise bad('lacks %s or %s; it is not of data set %s'
              % (IMAGE, label_key, dataset.name))
  if not 0 <= label[0] < dataset.num_classes:
    raise bad('has label %d; --dataset_name=%s has classes 0 to %d'
              % (label[0], dataset.name, dataset.num_classes - 1))
  if image[0].startswith(archives.PNG_SIGNATURE):
    if len(image[0]) < 24:
      raise bad('has an image that is cut off')
    size = struct.unpack('>II', image[0][16:24])
    if size != (dataset.image_size, dataset.image_size):
      raise bad('has an image of %d x %d pixels; --dataset_name=%s has %d x %d'
                % (size + (dataset.name,) + (dataset.image_size,) * 2))


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
      FORMAT: tf.FixedLenFeature([], tf.string, default_value='png'),
      label_key: scalar(),
      CLEAN_LABEL: scalar(default_value=[UNKNOWN_LABEL]),
      SOURCE_ID: tf.FixedLenFeature([], tf.string, default_value=''),
  }
  decode = slim.tfexample_decoder
  shape = [dataset.image_size, dataset.image_size, 3]
  items_to_handlers = {
      'image': decode.Image(IMAGE, FORMAT, shape=shape),
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
  with tf.Graph().as_default(), tf.device('/cpu:0'), \
      tf.Session(config=runtime.session_config()) as session:
    records = tf.placeholder(tf.string, [None])
    decoder = slim_dataset(dataset, split, files, num_samples).decoder
    decoded = tf.map_fn(
        lambda record: decoder.decode(record, list(ITEMS)), records,
        dtype=[tf.uint8, tf.int64, tf.int64, tf.string], parallel_iterations=32)
    run = lambda chunk: session.run(decoded, {records: chunk})
    done = 0
    for path in files:
      for first, chunk in _chunks(tf.python_io.tf_record_iterator(path)):
        try:
          values = run(chunk)
        except tf.errors.InvalidArgumentError:
          _name_damaged(dataset, path, first, chunk, run)
          raise
        for item, value in zip(ITEMS, values):
          arrays[item][done:done + len(chunk)] = value
        done += len(chunk)
  return arrays


def _chunks(items):
  """Yields lists of up to `_CHUNK` items, each with the index of its first."""
  items = iter(items)
  for first in itertools.count(0, _CHUNK):
    chunk = list(itertools.islice(items, _CHUNK))
    if not chunk:
      return
    yield first, chunk


def _name_damaged(dataset, path, first, chunk, run):
  """Raises UserError for the first record of a chunk that `run` fails on."""
  for index, record in enumerate(chunk, first):
    try:
      run([record])
    except tf.errors.InvalidArgumentError as error:
      raise UserError(
          '%s: the image of record %d cannot be decoded as %d x %d pixels (%s); '
          'make the file again' % (path, index, dataset.image_size,
                                   dataset.image_size, runtime.reason(error)))


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
