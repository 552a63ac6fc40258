"""The data sets: their names, their files on disk and what a record holds.

    <data_dir>/<name>_train-*     the noisy training set
    <data_dir>/<name>_test-*      the clean test set, or held-out training
                                  images with noisy labels

Every file is a TFRecord of tf.Example (the published schema):

    image/encoded            PNG bytes, [H, W, 3]; JPEG bytes of photographs,
                             of any size, RGB or grey
    image/format             b'png' or b'jpeg'
    image/class/label        [1] int64, the label given: noisy in a training set
    image/class/fine_label   [1] int64, cifar100 only: the clean fine label, on
                             which test sets are scored; of held-out training
                             images the label given
    image/class/clean_label  [1] int64, added here: the clean label; absent
                             where it is not known, as in sets prepared
                             elsewhere; -2 if the label is wrong, and what is
                             right is not known or none of the classes
    image/source_id          added here: which image this is: its index in the
                             archive, or its path in the folder it came from

A custom data set has a noise.json beside its files, which gives its name, its
number of classes and its image size, or that it holds photographs.
"""
import itertools
import os
import re
import typing

import numpy as np

from mentormix import file_kinds
from mentormix import runtime
from mentormix.data import image_set
from mentormix.data import noise_facts
from mentormix.data import png
from mentormix.messages import UserError
from mentormix.runtime import tf

IMAGE = 'image/encoded'
FORMAT = 'image/format'
LABEL = 'image/class/label'
FINE_LABEL = 'image/class/fine_label'
CLEAN_LABEL = 'image/class/clean_label'
SOURCE_ID = 'image/source_id'

ITEMS = ('image', 'label', 'clean_label', 'source_id')  # Of a decoded record.
UNKNOWN_LABEL = -1  # What a record without a clean label decodes to.

_FRAME = 16  # Bytes around a record: its length and two checksums.
MOST_NAMED = 10  # Bad records, or missing files.


class Dataset(typing.NamedTuple):
  """A data set by name."""
  name: str  # As on the command line and in the file names.
  num_classes: int  # K.
  # Height and width in pixels; None for photographs, which have any.
  image_size: typing.Optional[int]
  test_label: str  # The feature that the test split is scored on.
  photographs: bool = False  # JPEG of any size.

  def label_key(self, split):
    return self.test_label if split == 'test' else LABEL


class Shard(typing.NamedTuple):
  """A TFRecord file of a data set, and which of its records to skip."""
  path: str
  skipped: typing.FrozenSet[int] = frozenset()  # Their offsets in bytes.


DATASETS = {
    name: Dataset(name, num_classes, image_set.IMAGE_SIZE,
                  FINE_LABEL if name == 'cifar100' else LABEL)
    for name, num_classes in image_set.NUM_CLASSES.items()}


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
  facts = noise_facts.read_facts(data_dir) if data_dir else None
  if not facts or facts.get('dataset_name') != name:
    has = (f'holds {facts.get("dataset_name")}' if facts
           else f'has no {noise_facts.FACTS_FILE}')
    raise UserError(
        f'--dataset_name={name} is unknown here: --data_dir={data_dir} {has}; '
        'name the directory of a split that code/prepare_data.py made'
        f'{_such_as(data_dir)}; also known are {", ".join(sorted(DATASETS))}')
  try:
    photographs = facts.get('photographs') is True
    if photographs:
      int(facts['num_examples'])  # Nobody counts them.
    return Dataset(name, int(facts['num_classes']),
                   None if photographs else int(facts['image_size']), LABEL,
                   photographs)
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{os.path.join(data_dir, noise_facts.FACTS_FILE)} lacks '
                    f'{error}; make the data set again')


def _such_as(data_dir):
  """The splits below a directory, in words; '' if there are none."""
  names = sorted(os.listdir(data_dir)) if os.path.isdir(data_dir or '') else []
  below = [path for path in (os.path.join(data_dir, n) for n in names)
           if os.path.exists(os.path.join(path, noise_facts.FACTS_FILE))]
  return f': {", ".join(below[:MOST_NAMED])}' if below else ''


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
  found = [n for n in names if n.startswith(prefix)]
  if not found:
    has = f'--data_dir={data_dir} has no file {prefix}*'
    kinds = {'train': 'training', 'test': 'test'}
    wanted = kinds.pop(split)
    (other, kind), = kinds.items()
    if any(n.startswith(f'{dataset.name}_{other}-') for n in names):
      raise UserError(f'{has}: it is a {kind} set; name a {wanted} set')
    below = _such_as(data_dir)
    if below:
      raise UserError(f'{has}; name the directory of a split{below}')
    raise UserError(
        f'{has}; it holds {", ".join(names[:3]) or "nothing"}; check '
        '--data_dir, and the --dataset_name of the training')
  totals = re.findall(r'-of-(\d{5})$', '\n'.join(found), re.MULTILINE)
  if totals:
    odd = {f'{prefix}{n:05d}-of-{totals[0]}' for n in range(int(totals[0]))
           }.symmetric_difference(found)
    if odd:
      raise UserError(
          f'{data_dir} does not hold exactly the files of one set: '
          f'{", ".join(sorted(odd)[:MOST_NAMED])}; copy or make the missing '
          'ones again, and move those of another set')
  return [os.path.join(data_dir, n) for n in found]


def encode_example(encoded, label, clean_label=None, fine_label=None,
                   source_id=None, image_format=b'png'):
  """One record in the published schema.

  Args:
    encoded: bytes of the encoded image.
    label: the label given, an int.
    clean_label: the true label, an int, or noise.WRONG_LABEL; None where it
      is not known.
    fine_label: for cifar100, the true fine label.
    source_id: which image this is, a string.
    image_format: b'png' or b'jpeg'.

  Returns:
    Bytes, the same for the same arguments whatever the protobuf version.
  """
  example = tf.train.Example()
  feature = example.features.feature
  feature[IMAGE].bytes_list.value.append(encoded)
  feature[FORMAT].bytes_list.value.append(image_format)
  for key, value in ((LABEL, label), (CLEAN_LABEL, clean_label),
                     (FINE_LABEL, fine_label)):
    if value is not None:
      feature[key].int64_list.value.append(int(value))
  if source_id is not None:
    feature[SOURCE_ID].bytes_list.value.append(source_id.encode('utf-8'))
  return example.SerializeToString(deterministic=True)


def write_files(prefix, num_files, order, images, labels, clean_labels, ids,
                fine_labels=None):
  """Writes the TFRecords of one split.

  Args:
    prefix: of the paths of the files.
    num_files: how many files.
    order: which images to write one after another, ints.
    images: uint8 [N, H, W, 3].
    labels: ints [N], the labels given.
    clean_labels: ints [N], the true labels; None where they are not known.
    ids: N strings, which image each is.
    fine_labels: of cifar100, ints [N]; None for others.

  Raises:
    OSError: a file cannot be written.
  """
  try:
    for shard, indices in enumerate(np.array_split(order, num_files)):
      with tf.python_io.TFRecordWriter(
          f'{prefix}{shard:05d}-of-{num_files:05d}') as writer:
        for index in indices:
          clean = None if clean_labels is None else clean_labels[index]
          writer.write(encode_example(
              png.encode_png(images[index]), labels[index], clean,
              None if fine_labels is None else fine_labels[index],
              ids[index]))
  except tf.errors.OpError as error:
    raise OSError(runtime.reason(error))


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
        f'{path}: record {index + 1} cannot be read ({runtime.reason(error)}'
        f'{file_kinds.explain(path)}), nor can what follows it; make the file '
        'again') from error


def _offsets(path):
  """Yields where each record begins; EOFError if one ends beyond the file.

  TensorFlow checks the checksums. But it takes a file that ends within the
  length of a record to be complete, and allocates what a length asks for.
  """
  size = os.path.getsize(path)
  offset = 0
  with open(path, 'rb') as f:
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
