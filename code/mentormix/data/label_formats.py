"""The forms of label files, read without running code in them.

    text          one label a line; or columns, separated by comma, semicolon,
                  tab or space, with a header or as index (or path) and label
    JSON          a list of labels, of objects, or lists by key; labels by index
                  or path
    .npz, .npy    NumPy arrays: by key, just one, or one dictionary (CIFAR-N)
    .pt           a dictionary of arrays, from torch.save (CIFAR-N)

The content decides, not the name of the file. Whatever its form, a file becomes
columns: name -> values.
"""
import csv
import io
import json
import os
import zipfile

import numpy as np

from mentormix import file_kinds
from mentormix import files
from mentormix.data import plain_pickles
from mentormix.messages import UserError

LABEL = 'label'  # The name of the only values of a file.
_MAX_BYTES = 32 << 20  # Of a file, and of what it unpacks to.


def columns(path, flag):
  """Reads a label file.

  Args:
    path: of the file.
    flag: names it in error messages.

  Returns:
    Name -> values, for each column or key; the name is `LABEL` if the file has
    just one row of values. Values are a list or an array, or something else
    that is not labels.

  Raises:
    UserError: the file is missing or in no form that is known.
  """
  if not os.path.isfile(path):
    raise UserError(f'{flag} is not a file')
  what = None
  try:
    data = files.contents(path, _MAX_BYTES)
    what = file_kinds.what(data)
    found = _parse(data)
    if isinstance(found, dict):
      return found
    return {LABEL: found}
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
  try:
    text = data.decode('utf-16' if is_utf16 else 'utf-8-sig')
  except UnicodeDecodeError:
    raise ValueError('it is neither UTF-8 nor UTF-16 text')
  if text.lstrip()[:1] == '{' and '}\n{' in text:  # An object on each line.
    return _from_json(list(map(json.loads, text.strip().split('\n'))))
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
    return dict(_named(list(value)), **{LABEL: list(value.values())})
  return value


def _named(rows):
  """Names of rows as a column: of indices if they are numbers, else of ids."""
  return {'index' if all(row.isdecimal() for row in rows) else 'path': rows}


def _from_text(text):
  """Columns, in the order of the lines."""
  first = next((line for line in text.splitlines()
                if line.strip() and line[0] != '#'), '')
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
    if any(cells) and not cells[0].startswith('#'):  # NumPy's comments.
      rows.append((lines.line_num, cells))
  header = [cell.lower() for cell in rows[0][1]]
  if len(rows) == 1 and len(header) > 2 and all(map(_is_number, header)):
    return {LABEL: header}  # All labels on one line.
  if any(map(_is_number, header)):
    if len(header) > 2:
      raise ValueError('columns without a header are index and label, or path '
                       f'and label; it has {len(header)}')
    header = [LABEL] if len(header) == 1 else [
        'index' if _is_number(header[0]) else 'path', LABEL]
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
