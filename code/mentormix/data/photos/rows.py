"""The rows of a set of photographs, held compactly, and the bytes of an image.

Two million rows as Python objects need gigabytes. Here a row needs the letters
of its path and id and 32 bytes.
"""
import array
import hashlib
import typing

import numpy as np

_NOT_KNOWN = -1  # As it is stored.
_MOST_BYTES = 100 << 20  # Of one image.


class Row(typing.NamedTuple):
  """An image and its labels."""
  path: str  # Of the file, or what `in_tar` returns; '' if it is missing.
  label: int  # As given.
  clean: typing.Optional[int]  # Or noise.WRONG_LABEL; None: unknown.
  id: str  # Which image it is, wherever its file lies.


class _Texts:
  """A list of strings that can only grow."""

  def __init__(self):
    self._bytes, self._ends = bytearray(), array.array('q', [0])

  def append(self, text):
    self._bytes += text.encode('utf-8', 'surrogateescape')
    self._ends.append(len(self._bytes))

  def __getitem__(self, index):
    return bytes(self._bytes[self._ends[index]:self._ends[index + 1]]).decode(
        'utf-8', 'surrogateescape')


class Rows:
  """A list of `Row`s that can only grow."""

  def __init__(self, rows=()):
    self._paths, self._ids = _Texts(), _Texts()
    self._labels, self._clean = array.array('i'), array.array('i')
    for row in rows:
      self.append(row)

  def append(self, row):
    self._paths.append(row.path)
    self._ids.append(row.id)
    self._labels.append(row.label)
    self._clean.append(_NOT_KNOWN if row.clean is None else row.clean)

  def __len__(self):
    return len(self._labels)

  def __getitem__(self, index):
    if not 0 <= index < len(self):  # Ends an iteration.
      raise IndexError(index)
    clean = self._clean[index]
    return Row(self._paths[index], self._labels[index],
               None if clean == _NOT_KNOWN else clean, self._ids[index])

  def labels(self):
    """The given labels, int32 [N]."""
    return np.array(self._labels, np.int32)

  def clean(self):
    """The clean labels, int32 [N]; None if one is not known."""
    clean = np.array(self._clean, np.int32)
    return None if (clean == _NOT_KNOWN).any() else clean

  def md5(self):
    """A checksum of labels, clean labels and ids in their order, not paths."""
    digest = hashlib.md5()
    for index, (label, clean) in enumerate(zip(self._labels, self._clean)):
      digest.update(f'{label} {clean} {self._ids[index]}\n'.encode(
          'utf-8', 'surrogateescape'))
    return digest.hexdigest()


def in_tar(path, offset, size):
  """The path of a Row for `size` bytes at `offset` of an uncompressed tar."""
  return f'{path}\0{offset}\0{size}'


def contents(path):
  """The bytes of an image.

  Args:
    path: of a `Row`.

  Raises:
    OSError, ValueError: it cannot be read, or is too large.
  """
  path, *place = path.split('\0')
  offset, size = map(int, place or (0, _MOST_BYTES + 1))
  with open(path, 'rb') as f:
    f.seek(offset)
    data = f.read(min(size, _MOST_BYTES + 1))
  if len(data) > _MOST_BYTES:
    raise ValueError(f'it has more than {_MOST_BYTES >> 20} MiB')
  return data
