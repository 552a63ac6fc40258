"""Label files: the labels of a training set, written and read.

Written beside every training set, in the order of its source, which is not that
of the records:

    labels.json   [6, 9, 9, 4, ...]: the noisy labels, as DivideMix writes them
    labels.csv    index,label,clean_label,source_id: one line for each image

Read, whatever the name of the file, and without running code in it:

    JSON          such a list, or lists by key
    CSV           the columns index and label, in any order; without a header,
                  just these two
    .npz, .npy    NumPy arrays: by key, just one, or one dictionary (CIFAR-N)
    .pt           a dictionary of arrays, from torch.save (CIFAR-N)
"""
import csv
import io
import itertools
import json
import os
import typing
import zipfile

import numpy as np

from mentormix import files
from mentormix.data import noise
from mentormix.data import plain_pickles
from mentormix.messages import UserError

JSON_FILE = 'labels.json'
CSV_FILE = 'labels.csv'

_MAX_BYTES = 32 << 20  # Of a file, and of what it unpacks to.

# Labels in a wrong order agree with the images as by chance, within a few
# standard deviations. With fewer images, that can happen to very noisy labels
# too, so their order is not checked.
_DEVIATIONS = 6
_ENOUGH = 1000


class LabelFile(typing.NamedTuple):
  """The content of a label file."""
  path: str  # Of the file.
  md5: str  # Its checksum.
  key: typing.Optional[str]  # As the user wrote it; None for a file without.
  labels: np.ndarray  # int64 [N].
  clean: typing.Optional[np.ndarray]  # int64 [N], the true labels, if known.
  # int64 [N], relates this order to that of the source; None if both are one.
  index: typing.Optional[np.ndarray]


def write(directory, given, clean, ids):
  """Writes labels.json and labels.csv.

  Args:
    directory: where they go.
    given: the noisy labels, int64 [N].
    clean: the true labels, int64 [N]; None where they are not known.
    ids: N strings, which image each is.
  """
  with open(os.path.join(directory, JSON_FILE), 'w') as stream:
    json.dump(given.tolist(), stream)
    stream.write('\n')
  with open(os.path.join(directory, CSV_FILE), 'w', encoding='utf-8',
            newline='') as stream:
    rows = csv.writer(stream, lineterminator='\n')
    rows.writerow(['index', 'label', 'clean_label', 'source_id'])
    rows.writerows(zip(itertools.count(), given,
                       itertools.repeat('') if clean is None else clean, ids))


def read(path, key=None, index_path=None):
  """Reads a label file.

  Args:
    path: of the file.
    key: which of its labels; None for a file without keys. `worse` also finds
      `worse_label`, and `random1` finds `random_label1`.
    index_path: of the file with `LabelFile.index`, if any.

  Returns:
    A `LabelFile`. Whether it fits the images is checked by `fit`.

  Raises:
    UserError: a file or the key does not exist, or does not hold labels.
  """
  flag = f'--noise_file={path}'
  entries = _parse(path, flag)
  clean = index = None
  if not isinstance(entries, dict):
    if key is not None:
      raise UserError(f'{flag} has no keys; leave out --noise_key={key}')
    labels = _integers(entries, flag)
  else:
    name = _find(entries, key, flag)
    labels = _integers(entries[name], f'{flag}, {name}')
    for name in entries.keys() & {'clean', 'clean_label'}:
      clean = _integers(entries[name], f'{flag}, {name}')
  if index_path is not None:
    flag = f'--noise_index={index_path}'
    index = _integers(_parse(index_path, flag), flag)
  return LabelFile(path, files.md5_of(path), key, labels, clean, index)


def fit(label_file, source_labels, num_classes):
  """Checks that labels fit the images, and puts them in the images' order.

  Args:
    label_file: a `LabelFile`.
    source_labels: the labels that came with the images, int64 [N].
    num_classes: K.

  Returns:
    int64 [N].

  Raises:
    UserError: there are more or fewer labels than images, one is out of range,
      or their order is not that of the images.
  """
  flag = f'--noise_file={label_file.path}'
  count = len(source_labels)
  for labels in (label_file.labels, label_file.clean):
    if labels is None:
      continue
    if len(labels) != count:
      raise UserError(f'{flag} holds {len(labels)} labels; there are {count} '
                      f'training images, and each needs one')
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
      raise UserError(
          f'{flag}: entry {bad[0]}, counted from 0, is {labels[bad[0]]}; the '
          f'{num_classes} classes are 0 to {num_classes - 1}')
  if label_file.index is not None:
    return _reorder(label_file, source_labels)
  if label_file.clean is not None:
    wrong = np.sum(label_file.clean != source_labels)
    if wrong:
      raise UserError(
          f'{flag}: {wrong} of its {count} clean labels are not those of the '
          f'images, so its order is not that of the archive or folder; if it '
          f'is in TFDS order, pass --noise_index')
  elif count >= _ENOUGH:
    agree = 1 - noise.realised_rate(source_labels, label_file.labels)
    chance = np.dot(np.bincount(source_labels, None, num_classes) / count,
                    np.bincount(label_file.labels, None, num_classes) / count)
    if agree < chance + _DEVIATIONS * np.sqrt(chance / count):
      raise UserError(
          f'{flag}: the labels have nothing to do with the images ({agree:.1%} '
          'agree, as by chance), so their order is not that of the archive or '
          'folder')
  return label_file.labels


def _reorder(label_file, source_labels):
  """The labels in the order of the source; the clean ones say which way."""
  flag = f'--noise_file={label_file.path}'
  index, count = label_file.index, len(source_labels)
  if label_file.clean is None:
    raise UserError(f'{flag} has no clean labels to tell how to apply '
                    f'--noise_index; put the labels in order and leave it out')
  if len(index) != count or np.any(np.sort(index) != np.arange(count)):
    raise UserError(f'--noise_index holds {len(index)} numbers; it must hold '
                    f'each number from 0 to {count - 1} once')
  ways = (np.argsort(index), index)  # ordered[i] = source[index[i]]; or back.
  wrong = [np.sum(label_file.clean[way] != source_labels) for way in ways]
  if min(wrong):
    raise UserError(
        f'{flag}: with --noise_index, {min(wrong)} of its {count} clean labels '
        f'are not those of the images; pass the index of this file')
  return label_file.labels[ways[np.argmin(wrong)]]


# The formats.


def _parse(path, flag):
  """The content of a file: a list or array, or a dictionary of them by key."""
  if not os.path.isfile(path):
    raise UserError(f'{flag} is not a file')
  try:
    data = files.contents(path, _MAX_BYTES)
    if data.startswith(b'PK'):
      return _from_zip(data)
    if data.startswith(np.lib.format.MAGIC_PREFIX):
      return _from_npy(data)
    if data.startswith(b'\x80'):
      return plain_pickles.load(data)
    text = data.decode('utf-8-sig')
    return (json.loads(text) if text.lstrip()[:1] in ('[', '{')
            else _from_csv(text))
  except Exception as error:  # Damaged data can cause any error.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{flag} cannot be read as labels: {reason:.200}')


def _from_csv(text):
  """The labels in the order of the indices, a list."""
  rows = csv.reader(io.StringIO(text, newline=''), strict=True)
  columns = 0, 1
  found = {}  # Index -> label.
  for row in filter(None, rows):
    if not found and 'label' in row:
      columns = row.index('index'), row.index('label')
      continue
    try:
      index, label = (int(row[column]) for column in columns)
    except (IndexError, ValueError):
      raise ValueError(f'line {rows.line_num} has no whole numbers as index '
                       'and label')
    if index in found:
      raise ValueError(f'line {rows.line_num} has index {index} again')
    found[index] = label
  if sorted(found) != list(range(len(found))):
    raise ValueError(f'with {len(found)} labels the indices are 0 to '
                     f'{len(found) - 1}, not up to {max(found)}')
  return [found[index] for index in range(len(found))]


def _from_npy(data):
  """An array, or the dictionary inside an array of objects."""
  stream = io.BytesIO(data)
  np.lib.format.read_magic(stream)
  if np.lib.format.read_array_header_1_0(stream)[-1].hasobject:
    return plain_pickles.load(stream.read())
  return np.load(io.BytesIO(data), allow_pickle=False)


def _from_zip(data):
  """The arrays of an .npz by key, or what torch has saved since 1.6."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
      raise ValueError(f'it holds more than {_MAX_BYTES >> 20} MiB')
    members = {name: archive.read(name) for name in archive.namelist()}
  for name in members:
    if os.path.basename(name) == 'data.pkl':
      return plain_pickles.load(members[name])
  return {name[:-len('.npy')]: _from_npy(content)
          for name, content in members.items() if name.endswith('.npy')}


def _integers(values, what):
  """Labels as int64 [N]."""
  try:
    labels = np.asarray(values)
    if isinstance(values, list) and bool in map(type, values):
      raise ValueError('it holds true or false')
    if labels.dtype.kind not in 'iu' or labels.ndim != 1:
      raise ValueError(f'{labels.dtype} {list(labels.shape)}')
    return labels.astype(np.int64)
  except ValueError as error:
    raise UserError(f'{what} is not one row of integers: {error}')


def _find(entries, key, flag):
  """The name among `entries` that the user means by `key`."""
  names = sorted(map(str, entries))
  for name in (key, *names):
    if name in entries and (name == key or name.replace('_label', '') == key
                            or key is None and len(names) == 1):
      return name
  problem = f'has no --noise_key={key}' if key else 'needs --noise_key'
  raise UserError(f'{flag} {problem}; its keys are {", ".join(names):.300}')
