"""Label files: the labels of a training set, written and read.

Written beside every training set, in the order of its source, which is not that
of the records:

    labels.json   [6, 9, 9, 4, ...]: the noisy labels, as DivideMix writes them
    labels.csv    index,label,clean_label,source_id: one line for each image

Read, whatever the name of the file, and without running code in it:

    text          one label a line; or columns, separated by comma, semicolon,
                  tab or space, with a header or as index (or path) and label
    JSON          a list of labels, of objects, or lists by key; labels by index
                  or path
    .npz, .npy    NumPy arrays: by key, just one, or one dictionary (CIFAR-N)
    .pt           a dictionary of arrays, from torch.save (CIFAR-N)

Whatever the form, a file becomes columns: name -> values. `label_checks` says
whether they fit the images.
"""
import csv
import io
import itertools
import json
import os
import typing
import zipfile

import numpy as np

from mentormix import file_kinds
from mentormix import files
from mentormix.data import plain_pickles
from mentormix.messages import UserError

JSON_FILE = 'labels.json'
CSV_FILE = 'labels.csv'

# What columns of these names hold, besides labels.
INDEX_NAMES = ('index', 'idx', 'id', '', 'unnamed: 0')
CLEAN_NAMES = ('clean', 'clean_label', 'clean_labels', 'true_label')
ID_NAMES = ('source_id', 'path', 'file', 'filename', 'file_name', 'image',
            'image_path', 'image_id', 'name')
_LABEL = 'label'  # The only column of a file without names.

_MAX_BYTES = 32 << 20  # Of a file, and of what it unpacks to.


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
    key: which of its labels; None for the only ones. `worse` also finds
      `worse_label` and `label_worse`, and `random1` finds `random_label1`.
    index_path: of the file with `LabelFile.tfds_index`, if any.

  Returns:
    A `LabelFile`. Whether it fits the images is checked by `label_checks.fit`.

  Raises:
    UserError: a file or the key does not exist, or does not hold labels; or it
      holds several and none is chosen.
  """
  flag = f'--noise_file={path}'
  columns = _columns(path, flag)
  if list(columns) == [_LABEL] and key not in (None, _LABEL):
    raise UserError(f'{flag} has no keys; leave out --noise_key={key}')
  name = _find(columns, key, flag)
  labels = _integers(columns[name], f'{flag}, {name}')
  index, clean, ids = (
      next((x for x in columns if x in names), None)
      for names in (INDEX_NAMES, CLEAN_NAMES, ID_NAMES))
  if index is not None and _whole(columns[index]) is None:
    index, ids = None, index if ids is None else ids
  if clean is not None and not any(map(_is_given, columns[clean])):
    clean = None  # As labels.csv has it where they are not known.
  if clean is not None:
    clean = _integers(columns[clean], f'{flag}, {clean}')
  if ids is not None:
    ids = [str(value) for value in columns[ids]]
  if index is not None:
    order = _order(_whole(columns[index]), len(labels), f'{flag}, {index}')
    labels = labels[order]
    clean = None if clean is None else clean[order]
    ids = None if ids is None else [ids[k] for k in order]
  if index_path is not None:
    flag = f'--noise_index={index_path}'
    columns = _columns(index_path, flag)
    if list(columns) != [_LABEL]:
      raise UserError(f'{flag} does not hold one row of integers')
    index_path = _integers(columns[_LABEL], flag)
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
           and (x == _LABEL or _whole(columns[x]) is not None)]
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
  problem = f'has no --noise_key={key}' if key else 'needs --noise_key'
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
  """Values as int64 [N]; text such as 3 or 3.0 counts as a number."""
  try:
    if isinstance(values, list):
      values = [_number(value, position)
                for position, value in enumerate(values)]
    array = np.asarray(values)
    if array.dtype.kind not in 'iu' or array.ndim != 1 or not array.size:
      raise ValueError(f'{array.dtype} {list(array.shape)}')
    return array.astype(np.int64)
  except (ValueError, TypeError, OverflowError) as error:
    raise UserError(f'{what} is not one row of integers: {error}')


def _number(value, position):
  """A cell as an int; others raise ValueError, or stay for NumPy to judge."""
  if isinstance(value, bool):
    raise ValueError('it holds true or false')
  if isinstance(value, str):
    try:
      number = float(value)
      if number.is_integer():
        return int(number)
    except (ValueError, OverflowError):
      pass
    raise ValueError(f'entry {position}, counted from 0, is {value!r:.40}')
  if value is None:
    raise ValueError(f'entry {position}, counted from 0, is missing')
  return value


# The forms.


def _columns(path, flag):
  """The content of a file as columns, name -> values."""
  if not os.path.isfile(path):
    raise UserError(f'{flag} is not a file')
  what = None
  try:
    data = files.contents(path, _MAX_BYTES)
    what = file_kinds.what(data)
    found = _parse(data)
    if isinstance(found, dict):
      return found
    return {_LABEL: found}
  except Exception as error:  # Damaged data can cause any error.
    reason = ' '.join(str(error).split()) or type(error).__name__
    kind = f'it is {what}; ' if what else ''
    raise UserError(f'{flag} cannot be read as labels: {kind}{reason:.200}')


def _parse(data):
  """The content of a file: values, or columns."""
  if data.startswith(b'PK'):
    return _from_zip(data)
  if data.startswith(np.lib.format.MAGIC_PREFIX):
    return _from_npy(data)
  if data.startswith(b'\x80'):
    return plain_pickles.load(data)
  is_utf16 = data.startswith((b'\xff\xfe', b'\xfe\xff'))
  if file_kinds.what(data) and not is_utf16:
    raise ValueError('labels are text, JSON, .npz, .npy or .pt')
  text = data.decode('utf-16' if is_utf16 else 'utf-8-sig')
  if text.lstrip()[:1] in ('[', '{'):
    return _from_json(json.loads(text))
  return _from_text(text)


def _from_json(value):
  """A list, or columns: from lists by key, or objects by row or by column."""
  if isinstance(value, list) and value and all(
      isinstance(row, dict) for row in value):
    if any(set(row) != set(value[0]) for row in value):
      raise ValueError('its objects do not all have the same keys')
    return {name: [row[name] for row in value] for name in value[0]}
  if not isinstance(value, dict):
    return value
  if value and all(isinstance(column, dict) for column in value.values()):
    rows = list(next(iter(value.values())))  # As pandas writes a table.
    return dict(_named(rows), **{
        name: [column[row] for row in rows] for name, column in value.items()})
  if value and not any(isinstance(x, (list, str)) for x in value.values()):
    return dict(_named(list(value)), **{_LABEL: list(value.values())})
  return value


def _named(rows):
  """Names of rows as a column: of indices if they are numbers, else of ids."""
  return {'index' if all(row.isdecimal() for row in rows) else 'path': rows}


def _from_text(text):
  """Columns, in the order of the lines."""
  first = next((line for line in text.splitlines() if line.strip()), '')
  separator = max(',;\t', key=first.count)
  if separator not in first:
    separator = ' '
  lines = csv.reader(io.StringIO(text, newline=''), delimiter=separator,
                     skipinitialspace=True, strict=True)
  rows = []  # (line number, cells).
  for cells in lines:
    cells = [cell.strip() for cell in cells]
    if separator == ' ':
      cells = [cell for cell in cells if cell]
    if any(cells):
      rows.append((lines.line_num, cells))
  header = [cell.lower() for cell in rows[0][1]]
  if any(map(_is_number, header)):
    if len(header) > 2:
      raise ValueError('columns without a header are index and label, or path '
                       f'and label; it has {len(header)}')
    header = [_LABEL] if len(header) == 1 else [
        'index' if _is_number(header[0]) else 'path', _LABEL]
  elif len(rows) == 1:
    raise ValueError('it has no row of labels')
  else:
    del rows[0]
  if len(set(header)) < len(header):
    raise ValueError('two of its columns have the same name')
  for line, cells in rows:
    if len(cells) != len(header):
      raise ValueError(f'line {line} does not have {len(header)} cells, '
                       f'{", ".join(header)}')
  return dict(zip(header, map(list, zip(*[cells for _, cells in rows]))))


def _is_number(cell):
  try:
    float(cell)
    return True
  except ValueError:
    return False


def _from_npy(data):
  """An array, or what an array of objects holds."""
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
  arrays = {name[:-len('.npy')]: _from_npy(content)
            for name, content in members.items() if name.endswith('.npy')}
  if not arrays:
    raise ValueError(f'it holds {", ".join(sorted(members)):.80}; if it is a '
                     'workbook, save it as CSV')
  return arrays
