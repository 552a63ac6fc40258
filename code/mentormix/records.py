"""TFRecord files, walked without TensorFlow.

A file is a row of frames: 8 bytes length, 4 bytes checksum of these, the
record, 4 bytes checksum of the record; numbers are little-endian. TensorFlow
believes a length whose checksum is right and asks for as much memory, so every
file is walked here before TensorFlow opens it.
"""
import collections
import functools
import os
import struct

import numpy as np

_HEADER, _FOOTER = 12, 4  # Bytes.
_MAX_RECORD = 1 << 24  # Bytes; the upper five bytes of a length are zero, then.
_CHUNK = 1 << 16  # Bytes searched at a time.


class Frame(collections.namedtuple('Frame', 'offset size fault')):
  """A record in its file, or a stretch in which there is none.

  Attributes:
    offset: where it begins.
    size: bytes, with header and footer.
    fault: what is wrong, or None.
  """
  __slots__ = ()


def walk(path, check_data=False):
  """Yields a `Frame` for each record, and one for each stretch without any.

  After a fault it goes on where the next good header is. The frames follow one
  upon the other, from the first byte of the file to the last.

  Args:
    path: of a file.
    check_data: whether to look at the records' checksums, too. Slow: about ten
      megabytes a second.
  """
  size = os.path.getsize(path)
  with open(path, 'rb', _CHUNK) as f:
    at = 0
    while at < size:
      f.seek(at)
      length, fault = _header(f.read(_HEADER), size - at)
      if check_data and not fault:
        data = f.read(length)
        if struct.pack('<I', masked_crc32c(data)) != f.read(_FOOTER):
          fault = 'its checksum does not fit'
      end = _find(f, at + 1, size) if fault else (
          at + _HEADER + length + _FOOTER)
      yield Frame(at, end - at, fault)
      at = end


def read(f, frame):
  """The record in a frame without fault, from the open file."""
  f.seek(frame.offset + _HEADER)
  return f.read(frame.size - _HEADER - _FOOTER)


def _header(header, left):
  """Length of the record, and what is wrong with the header, or None.

  Args:
    header: bytes.
    left: bytes in the file from the header on.
  """
  cut = 'the file ends within it'
  if len(header) < _HEADER:
    return 0, cut
  length, checksum = struct.unpack('<QI', header)
  if _length_checksum(header[:8]) != checksum:
    return 0, 'its header is damaged, or this is no TFRecord file'
  if length >= _MAX_RECORD:
    return 0, 'its header asks for %d bytes' % length
  return length, cut if _HEADER + length + _FOOTER > left else None


@functools.lru_cache(maxsize=_CHUNK)  # Many records are of the same length.
def _length_checksum(length):
  return masked_crc32c(length)


def _find(f, at, size):
  """Where the next good header is, from `at` on; `size` if there is none."""
  tables = _length_tables()
  while at < size:
    f.seek(at)
    data = np.frombuffer(f.read(_CHUNK + _HEADER - 1), np.uint8)
    starts = np.arange(max(0, len(data) - _HEADER + 1))
    for k in range(3, 8):
      starts = starts[data[starts + k] == 0]
    headers = data[starts[:, None] + np.arange(_HEADER)]  # [N, 12]
    crc = np.bitwise_xor.reduce([
        table[headers[:, k]] for k, table in enumerate(tables)])
    lengths, _, checksums = headers.view('<u4').T
    good = starts[(_mask(crc) == checksums)
                  & (at + starts + _HEADER + lengths + _FOOTER <= size)]
    if good.size:
      return at + int(good[0])
    at += _CHUNK
  return size


@functools.lru_cache(maxsize=None)
def _length_tables():
  """Three tables [256]: xor gives the CRC-32C of a length of three bytes."""
  # The CRC of a xor b xor c is the xor of theirs, for the same number of bytes.
  return np.array([
      [_crc32c(struct.pack('<Q', byte << 8 * k)) for byte in range(256)]
      for k in range(3)], np.uint32)


def masked_crc32c(data):
  """CRC-32C of bytes, turned and moved as TensorFlow stores it."""
  return _mask(_crc32c(data)) & 0xffffffff


def _mask(crc):
  return (crc >> 15 | crc << 17) + 0xa282ead8


def _crc32c(data):
  crc = 0xffffffff
  for byte in data:
    crc = _CRC_OF_BYTE[(crc ^ byte) & 0xff] ^ crc >> 8
  return crc ^ 0xffffffff


def _crc_of(byte):
  for _ in range(8):
    byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
  return byte


_CRC_OF_BYTE = [_crc_of(byte) for byte in range(256)]
