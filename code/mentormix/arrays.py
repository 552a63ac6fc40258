"""NumPy's files, read without being believed.

NumPy itself reads a header as Python, which may nest, and sets memory aside for
whatever sizes it names.
"""
import collections
import re
import zipfile

import numpy as np

ENDING = '.npy'  # Of the names in an .npz, which is a zip of .npy files.

_HEADER = re.compile(
    r"\{'descr': '([<>=|]?[A-Za-z][0-9]{0,4})', "
    r"'fortran_order': (True|False), "
    r"'shape': \(((?:[0-9]{1,18}L?,? ?){0,4})\),? ?\}\s*$")
_MAX_HEADER = 1000  # Bytes; NumPy writes 128.


class Header(collections.namedtuple('Header', 'dtype shape order start')):
  """What a .npy says of itself.

  Attributes:
    dtype: NumPy's.
    shape: a tuple.
    order: of the elements, 'C' or 'F'.
    start: where in the file they are.
  """
  __slots__ = ()


def header(data):
  """The `Header` of a .npy, from its first bytes; ValueError if it has none."""
  if data[:8] != np.lib.format.MAGIC_PREFIX + b'\x01\x00':
    raise ValueError('it is of an unknown version of .npy')
  start = 10 + int.from_bytes(data[8:10], 'little')
  match = _HEADER.match(data[10:start].decode('latin1'))
  if not match:
    raise ValueError('its header is not that of a plain array')
  dtype, in_columns, sizes = match.groups()
  return Header(np.dtype(dtype),
                tuple(int(size) for size in re.findall('[0-9]+', sizes)),
                'F' if in_columns == 'True' else 'C', start)


def elements(data, head):
  """The array of a `Header`.

  Args:
    data: bytes, of the elements alone.
    head: the `Header`.

  Raises:
    ValueError: there are more or fewer, or they are Python objects.
  """
  return np.frombuffer(data, head.dtype).reshape(head.shape, order=head.order)


def headers(archive, names):
  """Name -> `Header` of those arrays that an .npz holds.

  Args:
    archive: a zipfile.ZipFile.
    names: of arrays.

  Raises:
    Exception: of any class; it is damaged.
  """
  there = set(archive.namelist())
  found = {}
  for name in names:
    if name + ENDING in there:
      with archive.open(name + ENDING) as f:
        found[name] = header(f.read(_MAX_HEADER))
  return found


def read(archive, name, head):
  """An array of an .npz.

  Args:
    archive: a zipfile.ZipFile.
    name: of the array.
    head: its `Header`; how much memory it takes is for the caller to bound.

  Raises:
    Exception: of any class; it is damaged.
  """
  info = archive.getinfo(name + ENDING)
  size = head.dtype.itemsize
  for length in head.shape:
    size *= length
  # To the last byte: only there is the checksum looked at.
  if info.file_size != head.start + size or info.compress_type not in (
      zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError('%s does not fit together' % name)
  with archive.open(info) as f:
    f.read(head.start)
    return elements(f.read(size), head)
