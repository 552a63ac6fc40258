"""TFRecord files, sound and damaged, and what is saved of them."""
import struct

import numpy as np
import pytest

from mentormix import records
from mentormix.runtime import tf

RECORDS = [b'first', b'', b'\0' * 40, bytes(range(256)) * 4]
MIB = 1 << 20


def _header(length):
  length = struct.pack('<Q', length)
  return length + struct.pack('<I', records.masked_crc32c(length))


def _frame(record):
  return (_header(len(record)) + record
          + struct.pack('<I', records.masked_crc32c(record)))


def _walk(path, data, check_data=True):
  """Frames of a file with these bytes, and the records in the good ones."""
  path.write_bytes(data)
  frames = list(records.walk(str(path), check_data))
  ends = [frame.offset + frame.size for frame in frames]
  assert [frame.offset for frame in frames] + [len(data)] == [0] + ends
  with open(str(path), 'rb') as f:
    return frames, [records.read(f, frame) for frame in frames
                    if not frame.fault]


def _faults(frames):
  return [(k, frame.fault) for k, frame in enumerate(frames) if frame.fault]


def test_the_checksum_is_that_of_its_definition():
  crc = 0xe3069283  # The check value of CRC-32C, of the digits 1 to 9.
  rotated = (crc >> 15 | crc << 17) & 0xffffffff
  assert records.masked_crc32c(b'123456789') == (
      rotated + 0xa282ead8) & 0xffffffff


def test_what_tensorflow_writes(tmp_path):
  path = tmp_path / 'x'
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for record in RECORDS:
      writer.write(record)
  data = path.read_bytes()
  assert data == b''.join(map(_frame, RECORDS))
  for check_data in (False, True):
    frames, found = _walk(path, data, check_data)
    assert found == RECORDS
    assert not _faults(frames)


def test_a_file_cut_off_anywhere(tmp_path):
  frames = [_frame(record) for record in (b'one', b'another', b'third')]
  data = b''.join(frames)
  ends = np.cumsum([0] + [len(frame) for frame in frames])
  for size in range(len(data)):
    whole = int(np.searchsorted(ends, size, side='right')) - 1
    for check_data in (False, True):
      found, kept = _walk(tmp_path / 'x', data[:size], check_data)
      assert kept == [b'one', b'another', b'third'][:whole]
      if size == ends[whole]:
        assert not _faults(found)
      else:
        assert _faults(found) == [(whole, 'the file ends within it')]


def test_a_bit_flipped_anywhere(tmp_path):
  frames = [_frame(record) for record in (b'one', b'another', b'third')]
  data = b''.join(frames)
  starts = np.cumsum([0] + [len(frame) for frame in frames])
  for at in range(len(data)):
    for bit in (0, 7):
      flipped = bytearray(data)
      flipped[at] ^= 1 << bit
      found, kept = _walk(tmp_path / 'x', bytes(flipped))
      hit = int(np.searchsorted(starts, at, side='right')) - 1
      assert len(found) == 3 and len(kept) == 2
      (index, fault), = _faults(found)
      assert index == hit
      assert fault.startswith('its header is damaged' if at < starts[hit] + 12
                              else 'its checksum does not fit')


@pytest.mark.parametrize('length,fault', [
    (2**60, 'its header asks for 1152921504606846976 bytes'),
    (2**64 - 1, 'its header asks for 18446744073709551615 bytes'),
    (16 * MIB, 'its header asks for 16777216 bytes'),
    (16 * MIB - 1, 'the file ends within it'),
    (30, 'the file ends within it'),
])
def test_a_length_that_cannot_be(tmp_path, length, fault):
  data = _frame(b'a') + _header(length) + b'xx' + _frame(b'b')
  for check_data in (False, True):
    frames, found = _walk(tmp_path / 'x', data, check_data)
    assert found == [b'a', b'b']
    assert _faults(frames) == [(1, fault)]


@pytest.mark.parametrize('byte', [b'\0', b'\xff', b'x'])
@pytest.mark.parametrize('size', [
    1, 11, 12, 16, 65523, 65524, 65525, 65535, 65536, 65537, 200000])
def test_after_a_gap_of_any_size_nothing_is_lost(tmp_path, byte, size):
  data = _frame(b'a') + byte * size + _frame(b'b' * 300) + _frame(b'c')
  frames, found = _walk(tmp_path / 'x', data)
  assert found == [b'a', b'b' * 300, b'c']
  (index, fault), = _faults(frames)
  assert (index, frames[index].size) == (1, size)
  assert fault.startswith('its header is damaged')


def test_every_length_is_found_again(tmp_path):
  for length in (0, 1, 255, 256, 65535, 65536, 70000, 300000):
    frames, found = _walk(tmp_path / 'x', b'?' + _frame(b'z' * length))
    assert [len(record) for record in found] == [length]
    assert len(frames) == 2


def test_bytes_that_are_missing_cost_one_record(tmp_path):
  data = _frame(b'a' * 50) + _frame(b'b' * 50)[:-10] + _frame(b'c' * 50)
  frames, found = _walk(tmp_path / 'x', data)
  assert found == [b'a' * 50, b'c' * 50]
  assert len(frames) == 3


def test_files_without_any_record(tmp_path):
  assert _walk(tmp_path / 'x', b'') == ([], [])
  noise = np.random.RandomState(0).bytes(300000)
  for data in (noise, b'\0' * 300000, b'no TFRecord', b'\x1f\x8b\x08'):
    frames, found = _walk(tmp_path / 'x', data)
    assert not found
    assert len(frames) == 1
