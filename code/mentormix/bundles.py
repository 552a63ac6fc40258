"""What a checkpoint of TensorFlow holds, read without TensorFlow.

TensorFlow's own reader ends the process, or takes memory without end, where the
.index of a checkpoint was made to harm. So it is read here first, more strictly
than TensorFlow reads it: what passes is safe to give to TensorFlow.

The .index is a table (as in LevelDB) of protocol buffers: under '' the
BundleHeader, under each name the BundleEntryProto, both of
tensorflow/core/protobuf/tensor_bundle.proto.
"""
import collections
import os
import struct

import numpy as np

from mentormix import files
from mentormix import records

_MAX_INDEX = 1 << 20  # Bytes.
_MAX_KEY = 1000  # Bytes.
_MAX_RANK = 8
_MAX_ELEMENTS = 1 << 40  # Of a variable; far more would wrap around an int64.
_MAX_SHARDS = 10000
_MAGIC = struct.pack('<Q', 0xdb4775248b80fb57)
# tf.DType -> NumPy's; bfloat16, which NumPy lacks, as 2 bytes.
_DTYPES = {1: '<f4', 2: '<f8', 3: '<i4', 4: 'u1', 5: '<i2', 6: 'i1', 9: '<i8',
           10: '?', 14: 'V2', 17: '<u2', 19: '<f2', 22: '<u4', 23: '<u8'}

# Kinds of fields, in protocol buffers, and what stands for one left out.
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_LEFT_OUT = {_VARINT: 0, _BYTES: b'', _FIXED32: 0}
# Field -> kind.
_HEADER = {1: _VARINT, 2: _VARINT, 3: _BYTES}  # Shards, byte order, version.
_ENTRY = {1: _VARINT, 2: _BYTES, 3: _VARINT, 4: _VARINT, 5: _VARINT,
          6: _FIXED32}  # The fields of `Entry`.
_SHAPE, _DIM = {2: _BYTES}, {1: _VARINT}


class Entry(collections.namedtuple(
    'Entry', 'dtype shape path offset size checksum')):
  """A variable.

  Attributes:
    dtype: NumPy's; None if it holds no plain numbers, strings for example.
    shape: a tuple.
    path: of the file that holds its elements.
    offset: where in it they are.
    size: of them, in bytes.
    checksum: of them, as of `records.masked_crc32c`.
  """
  __slots__ = ()


def read_index(prefix):
  """The variables of a checkpoint: their elements are there, but not yet read.

  Args:
    prefix: of the paths of its files.

  Returns:
    Name -> `Entry`.

  Raises:
    OSError: a file is missing.
    ValueError: one is damaged.
  """
  try:
    table = _read_table(files.contents(prefix + '.index', _MAX_INDEX))
    shards, byte_order, _ = _fields(table.pop(b''), _HEADER)
    if byte_order or not 0 < shards <= _MAX_SHARDS:
      raise ValueError('its header is of another kind')
    return {name.decode('utf-8'): _entry(prefix, shards, _fields(value, _ENTRY))
            for name, value in table.items()}
  except (LookupError, struct.error) as error:
    raise ValueError('its index is damaged (%s)' % error)


def _entry(prefix, shards, fields):
  """The `Entry` of the fields of a BundleEntryProto."""
  kind, shape, shard, offset, size, checksum = fields
  shape = tuple(_fields(dim, _DIM)[0] for dim in _repeated(shape, _SHAPE, 2))
  dtype = np.dtype(_DTYPES[kind]) if kind in _DTYPES else None
  count = least = 1
  for length in shape:
    count *= length
    least *= max(1, length)
  if (len(shape) > _MAX_RANK or least > _MAX_ELEMENTS or shard >= shards
      or dtype and count * dtype.itemsize != size):
    raise ValueError('the sizes in its index do not fit together')
  path = '%s.data-%05d-of-%05d' % (prefix, shard, shards)
  if offset + size > os.path.getsize(path):
    raise ValueError('%s is cut short' % path)
  return Entry(dtype, shape, path, offset, size, checksum)


def read_array(entry):
  """The elements of a variable; ValueError if they are damaged."""
  with open(entry.path, 'rb') as f:
    f.seek(entry.offset)
    data = f.read(entry.size)
  if records.masked_crc32c(data) != entry.checksum:
    raise ValueError('%s is damaged' % entry.path)
  return np.frombuffer(data, entry.dtype).reshape(entry.shape)


# The table.


def _read_table(data):
  """Key -> value, both bytes."""
  footer = data[-48:]
  if footer[-8:] != _MAGIC:
    raise ValueError('it has no index')
  at = 0
  for _ in range(2):  # Where its metadata are.
    _, at = _varint(footer, at)
  found, end, last = {}, -1, b''
  for limit, handle in _read_block(data, *_handle(footer[at:])):
    offset, size = _handle(handle)
    block = _read_block(data, offset, size)
    if offset <= end or not block or found and block[0][0] <= last:
      raise ValueError('the blocks of its index are in disorder')
    end, last = offset, limit
    if block[-1][0] > limit:
      raise ValueError('the blocks of its index are in disorder')
    found.update(block)
  return found


def _handle(data):
  """Offset and size of a block."""
  offset, at = _varint(data, 0)
  return offset, _varint(data, at)[0]


def _read_block(data, offset, size):
  """The pairs (key, value) of a block, in the order of the keys."""
  block, trailer = data[offset:offset + size], data[offset + size:][:5]
  checksum, = struct.unpack('<I', trailer[1:])
  # A byte for the compression, which checkpoints have none of.
  if trailer[0] or records.masked_crc32c(block + trailer[:1]) != checksum:
    raise ValueError('a block of its index is damaged')
  count, = struct.unpack('<I', block[-4:])
  end = size - 4 - 4 * count
  if not count or end < 0:
    raise ValueError('a block of its index is damaged')
  # Where TensorFlow starts to read: at keys that share nothing with the last.
  starts = struct.unpack('<%dI' % count, block[end:-4])
  found, whole, at, key = [], [], 0, b''
  while at < end:
    begin = at
    shared, at = _varint(block, at)
    fresh, at = _varint(block, at)
    length, at = _varint(block, at)
    if (shared > len(key) or fresh > _MAX_KEY or len(key) > _MAX_KEY
        or at + fresh + length > end):
      raise ValueError('an entry of its index is damaged')
    previous, key = key, key[:shared] + block[at:at + fresh]
    if found and key <= previous:
      raise ValueError('the keys of its index are in disorder')
    if not shared:
      whole.append(begin)
    at += fresh
    found.append((key, block[at:at + length]))
    at += length
  if found and (starts[0] or sorted(set(starts)) != list(starts)
                or not set(starts) <= set(whole)):
    raise ValueError('the keys of its index are in disorder')
  return found


# Protocol buffers.


def _fields(data, kinds):
  """The value of each of the fields `kinds`, in their order.

  Raises:
    ValueError, LookupError: one is there twice, so that another reader could
      take the other; or there are others.
  """
  found = {}
  for number, value in _read_fields(data, kinds):
    if number in found:
      raise ValueError('a field of its index is there twice')
    found[number] = value
  return [found.get(number, _LEFT_OUT[kind])
          for number, kind in sorted(kinds.items())]


def _repeated(data, kinds, number):
  """All values of one of the fields `kinds`."""
  return [value for n, value in _read_fields(data, kinds) if n == number]


def _read_fields(data, kinds):
  """Yields (number, value) of the fields, which are of the kinds expected."""
  at = 0
  while at < len(data):
    key, at = _varint(data, at)
    number, kind = key >> 3, key & 7
    if kinds.get(number) != kind:
      raise ValueError('a field of its index is of another kind')
    if kind == _VARINT:
      value, at = _varint(data, at)
    elif kind == _BYTES:
      size, at = _varint(data, at)
      value, at = data[at:at + size], at + size
    else:
      (value,), at = struct.unpack('<I', data[at:at + 4]), at + 4
    yield number, value
  if at > len(data):
    raise ValueError('a field of its index is cut short')


def _varint(data, at):
  """A number in pieces of seven bits, and where it ends."""
  value = 0
  for place in range(9):  # More would be 2^63 or above, or negative.
    piece = data[at + place]
    value |= (piece & 127) << 7 * place
    if piece < 128:
      if place and not piece:  # Not as short as can be: for TensorFlow an end.
        break
      return value, at + place + 1
  raise ValueError('a number of its index is too long')
