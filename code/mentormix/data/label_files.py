"""Label files: the labels of a training set, written and read.

Written beside every training set, in the order of its source, which is not that
of the records:

    labels.json   [6, 9, 9, 4, ...]: the noisy labels, as DivideMix writes them,
                  those of held-out images too: the position says which image
    labels.csv    index,label,clean_label,source_id: one line for each record;
                  the index is the position in labels.json

`label_formats` says in which forms a file is read; `label_checks`, whether its
labels fit the images.
"""
import csv
import json
import os
import typing

import numpy as np

from mentormix import files
from mentormix.data import label_formats
from mentormix.data.label_formats import LABEL
from mentormix.messages import UserError

JSON_FILE = 'labels.json'
CSV_FILE = 'labels.csv'

# What columns of these names hold, besides labels.
INDEX_NAMES = ('index', 'idx', 'id', '', 'unnamed: 0')
CLEAN_NAMES = ('clean', 'clean_label', 'clean_labels', 'true_label')
ID_NAMES = ('source_id', 'path', 'file', 'filename', 'file_name', 'image',
            'image_path', 'image_id', 'name')


class LabelFile(typing.NamedTuple):
  """The content of a label file, in the order of its index if it has one."""
  path: str  # Of the file.
  md5: str  # Its checksum.
  key: typing.Optional[str]  # As the user wrote it; None for the only labels.
  labels: np.ndarray  # int64 [N].
  clean: typing.Optional[np.ndarray]  # int64 [N], the true labels, if known.
  ids: typing.Optional[list]  # N strings, which image each is, if given.
  has_index: bool  # Whether an index within the file gave the order.
  # int64 [N], relates this order to that of the source; None if both are one.
  tfds_index: typing.Optional[np.ndarray]


def write_json(directory, given):
  """Writes labels.json with the noisy labels, int64 [N]."""
  with open(os.path.join(directory, JSON_FILE), 'w') as stream:
    json.dump(given.tolist(), stream)
    stream.write('\n')


def write_csv(directory, given, clean, ids, rows):
  """Writes labels.csv.

  Args:
    directory: where it goes.
    given: the noisy labels, int64 [N].
    clean: the true labels, int64 [N]; None where they are not known.
    ids: N strings, which image each is.
    rows: which of the N it has, ints.
  """
  with open(os.path.join(directory, CSV_FILE), 'w', encoding='utf-8',
            newline='') as stream:
    table = csv.writer(stream, lineterminator='\n')
    table.writerow(['index', 'label', 'clean_label', 'source_id'])
    table.writerows((k, given[k], '' if clean is None else clean[k], ids[k])
                    for k in rows)


def read(path, key=None, index_path=None, flag='noise_file'):
  """Reads a label file.

  Args:
    path: of the file.
    key: which of its labels; None for the only ones. `worse` also finds
      `worse_label` and `label_worse`, and `random1` finds `random_label1`.
    index_path: of the file with `LabelFile.tfds_index`, if any.
    flag: names the file in error messages.

  Returns:
    A `LabelFile`. Whether it fits the images is checked by `label_checks.fit`.

  Raises:
    UserError: a file or the key does not exist, or does not hold labels; or it
      holds several and none is chosen.
  """
  flag = f'--{flag}={path}'
  columns = label_formats.columns(path, flag)
  if list(columns) == [LABEL] and key not in (None, LABEL):
    raise UserError(f'{flag} has no keys; leave out --noise_key={key}')
  name = _find(columns, key, flag)
  labels = _integers(columns[name], f'{flag}, {name}')
  indices, clean, ids = (
      [x for x in columns if x in names]
      for names in (INDEX_NAMES, CLEAN_NAMES, ID_NAMES))
  ids += [x for x in indices if _whole(columns[x]) is None]
  indices = [x for x in indices if x not in ids]
  index, clean, ids = (next(iter(x), None) for x in (indices, clean, ids))
  for other in indices[1:]:
    if not np.array_equal(_whole(columns[index]), _whole(columns[other])):
      raise UserError(f'{flag}: its columns {index!r} and {other!r} contradict '
                      'each other; remove one')
  # In labels.csv, clean labels are empty where they are not known.
  if clean is not None and set(map(str, np.ravel(columns[clean]))) != {''}:
    clean = _integers(columns[clean], f'{flag}, {clean}')
  else:
    clean = None
  if ids is not None:  # Elsewhere, a key such as `name` may be anything.
    ids = [str(value) for value in np.ravel(columns[ids])]
    ids = ids if len(ids) == len(labels) else None
  if index is not None:
    order = _order(_whole(columns[index]), len(labels), f'{flag}, {index}')
    labels = labels[order]
    clean = None if clean is None else clean[order]
    ids = None if ids is None else [ids[k] for k in order]
  if index_path is not None:
    flag = f'--noise_index={index_path}'
    columns = label_formats.columns(index_path, flag)
    if list(columns) != [LABEL]:
      raise UserError(f'{flag} does not hold one row of integers')
    index_path = _integers(columns[LABEL], flag)
  return LabelFile(path, files.md5_of(path), key, labels, clean, ids,
                   index is not None, index_path)


def _order(index, count, what):
  """Positions of the labels 0 to N - 1 in a file with these indices."""
  if len(index) != count:
    raise UserError(f'{what} holds {len(index)} indices for {count} labels')
  if not np.array_equal(np.sort(index), np.arange(count)):
    raise UserError(f'{what}: with {count} labels the indices must be 0 to '
                    f'{count - 1}, each once; they are {index.min()} to '
                    f'{index.max()}, {len(np.unique(index))} different ones')
  return np.argsort(index)


def _find(columns, key, flag):
  """The name among `columns` that the user means by `key`."""
  beside = INDEX_NAMES + CLEAN_NAMES + ID_NAMES
  names = sorted(map(str, columns))
  known = [x for x in names if x not in beside
           and (x == LABEL or _whole(columns[x]) is not None)]
  if key is None and len(known) == 1:
    return known[0]
  for name in ((key, key.strip().lower(), *names) if key else ()):
    if name in columns and (name in (key, key.strip().lower()) or key in (
        name.replace('_label', ''), name.replace('label_', ''))):
      return name
  if not known and not key:
    for name in names:  # The fault of the only column that may be meant.
      if len(names) - len(set(names) & set(beside)) == 1 and name not in beside:
        return name
  problem = (f'has no --noise_key={key}' if key else
             'needs --noise_key' if known else 'has no whole numbers as labels')
  raise UserError(f'{flag} {problem}; its keys are {", ".join(names):.300}')


def _is_given(value):
  return value is not None and str(value).strip() != ''


def _whole(values):
  """Values as int64 [N]; None if they are not one row of whole numbers."""
  try:
    return _integers(values, '')
  except UserError:
    return None


def _integers(values, what):
  """Values [N] or [N, 1] as int64 [N]; 3.0 counts as a whole number."""
  try:
    if isinstance(values, list):
      values = [_number(value, position)
                for position, value in enumerate(values)]
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
      array = array[:, 0]
    if array.dtype.kind == 'f' and (np.abs(array) < 2**53).all() and (
        array == np.floor(array)).all():
      array = array.astype(np.int64)
    if array.dtype.kind not in 'iu' or array.ndim != 1 or not array.size:
      raise ValueError(f'{array.dtype} {list(array.shape)}')
    return array.astype(np.int64)
  except (ValueError, TypeError, OverflowError) as error:
    raise UserError(f'{what} is not one row of integers: {error}')


def _number(value, position):
  """A cell as an int; others raise ValueError, or stay for NumPy to judge."""
  if isinstance(value, bool):
    raise ValueError('it holds true or false')
  if not _is_given(value):
    raise ValueError(f'entry {position}, counted from 0, is missing')
  if isinstance(value, str):
    try:
      number = float(value)
      if number.is_integer():
        return int(number)
    except (ValueError, OverflowError):
      pass
    raise ValueError(f'entry {position}, counted from 0, is {value!r:.40}; '
                     'give class ids')
  return value
