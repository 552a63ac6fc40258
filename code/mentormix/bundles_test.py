"""Checkpoints of TensorFlow, read without it: whole, damaged, made to harm."""
import collections
import os
import struct

import numpy as np
import pytest

from mentormix import bundles
from mentormix import records
from mentormix.runtime import tf

VALUES = collections.OrderedDict((
    ('a', np.float32([[1, 2, 3], [4, 5, 6]])), ('net/step', np.int64(7)),
    ('net/w', np.arange(20, dtype=np.float64)), ('none', np.zeros([0, 2], '?')),
    ('text', np.array(b'words'))))
INDEX, DATA = 'x.index', 'x.data-00000-of-00001'


def _save(directory, values=None):
  prefix = str(directory / 'x')
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in (values or VALUES).items():
      tf.get_variable(name, initializer=tf.constant(value))
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, prefix, write_meta_graph=False)


def test_what_tensorflow_has_saved(tmp_path):
  index = bundles.read_index(_save(tmp_path))
  assert list(index) == list(VALUES)
  for name, value in VALUES.items():
    assert index[name].shape == value.shape
    assert index[name].path == str(tmp_path / DATA)
    if name == 'text':
      assert index[name].dtype is None
      continue
    found = bundles.read_array(index[name])
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


def test_many_variables(tmp_path):
  """More than one block of the index, and names that share their beginning."""
  values = {'net/%d%s' % (k, 'long' * 200): np.float32([k]) for k in range(400)}
  prefix = _save(tmp_path, values)
  assert os.path.getsize(prefix + '.index') > 1 << 18  # A block.
  index = bundles.read_index(prefix)
  assert sorted(index) == sorted(values)
  for name in list(values)[::50]:
    assert bundles.read_array(index[name]) == values[name]


@pytest.mark.parametrize('name,damage', [
    (INDEX, lambda data: data[:100]), (INDEX, lambda data: b''),
    (INDEX, lambda data: b'junk' * 100), (INDEX, lambda data: data[:-1]),
    (INDEX, lambda data: data[:20] + b'x' + data[21:]),
    (INDEX, lambda data: data + bytes(1 << 20)),
    (DATA, lambda data: data[:-10]), (DATA, lambda data: b'')])
def test_damaged_files(name, damage, tmp_path):
  prefix = _save(tmp_path)
  (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
  with pytest.raises(ValueError):
    bundles.read_index(prefix)


@pytest.mark.parametrize('name', [INDEX, DATA])
def test_missing_files(name, tmp_path):
  prefix = _save(tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(OSError):
    bundles.read_index(prefix)


def test_damaged_elements(tmp_path):
  prefix = _save(tmp_path)
  data = (tmp_path / DATA).read_bytes()
  (tmp_path / DATA).write_bytes(b'x' + data[1:])
  with pytest.raises(ValueError, match='damaged'):
    bundles.read_array(bundles.read_index(prefix)['a'])


def varint(number):
  """A number in pieces of seven bits."""
  pieces = bytearray()
  while number > 127:
    pieces.append(number & 127 | 128)
    number >>= 7
  return bytes(pieces) + bytes([number])


def _block(pairs, starts=(0,), shared=0):
  out = b''
  for key, value in pairs:
    out += varint(shared) + varint(len(key)) + varint(len(value)) + key + value
  return out + struct.pack('<%dI' % (len(starts) + 1), *starts + (len(starts),))


def _table(pairs, limit=b'z', **kwargs):
  """The bytes of an index with one block."""
  block = _block(pairs, **kwargs)
  blocks = [block, _block([]), None]
  out, handles = b'', []
  for part in blocks:
    if part is None:
      part = _block([(limit, handles[0])])
    handles.append(varint(len(out)) + varint(len(part)))
    part += b'\0'
    out += part + struct.pack('<I', records.masked_crc32c(part))
  footer = handles[1] + handles[2]
  return out + footer.ljust(40, b'\0') + struct.pack('<Q', 0xdb4775248b80fb57)


HEADER = (b'', b'\x08\x01\x1a\x02\x08\x01')
SHAPE = b'\x12\x04\x12\x02\x08\x02'
ENTRY = b'\x08\x01' + SHAPE + b'\x28\x08'  # Two numbers, float32, 8 bytes.


def _read(directory, pairs, **kwargs):
  (directory / INDEX).write_bytes(_table(pairs, **kwargs))
  (directory / DATA).write_bytes(bytes(100))
  return bundles.read_index(str(directory / 'x'))


def test_an_index_by_hand(tmp_path):
  entry = _read(tmp_path, [HEADER, (b'w', ENTRY)])['w']
  assert (entry.dtype, entry.shape, entry.offset, entry.size) == (
      np.float32, (2,), 0, 8)
  reader = tf.train.load_checkpoint(str(tmp_path / 'x'))
  assert reader.get_variable_to_shape_map() == {'w': [2]}


@pytest.mark.parametrize('pairs', [
    [], [HEADER, HEADER], [(b'w', ENTRY)],
    [HEADER, (b'w', ENTRY), (b'v', ENTRY)],
    [HEADER, (b'w', ENTRY), (b'w', ENTRY)], [HEADER, (b'w' * 1001, ENTRY)],
    [HEADER, (b'\xff', ENTRY)]] + [
        [header] for header in [
            (b'', b''), (b'', b'\x08\x00'), (b'', b'\x08\x01\x10\x01'),
            (b'', b'\x08' + varint(2**40)), (b'', b'\x08\x81\x00')]])
def test_damaged_tables(pairs, tmp_path):
  with pytest.raises(ValueError):
    _read(tmp_path, pairs)


@pytest.mark.parametrize('kwargs', [
    dict(starts=(1,)), dict(starts=(0, 5)), dict(starts=(0, 0)),
    dict(starts=(0, 2**31)), dict(starts=()), dict(shared=1),
    dict(shared=2**40), dict(limit=b'v')], ids=str)
def test_damaged_blocks(kwargs, tmp_path):
  """TensorFlow follows some of these out of the block."""
  with pytest.raises(ValueError):
    _read(tmp_path, [HEADER, (b'w', ENTRY)], **kwargs)


def _dims(*sizes):
  dims = b''.join(b'\x12' + varint(len(dim)) + dim
                  for dim in (b'\x08' + varint(size) for size in sizes))
  return b'\x12' + varint(len(dims)) + dims


@pytest.mark.parametrize('entry', [
    ENTRY + b'\x3a\x00',  # In slices,
    ENTRY + b'\x07', ENTRY + b'\x48\x01',  # fields of no kind,
    ENTRY + b'\x28\x08',  # one twice,
    ENTRY + SHAPE, ENTRY[:-1], ENTRY + b'\x35\x00',  # and cut ones.
    ENTRY.replace(b'\x28\x08', b'\x28\x88\x00'),
    ENTRY.replace(b'\x28\x08', b'\x28' + b'\xff' * 9 + b'\x01'),
    ENTRY.replace(b'\x08\x01', b'\x08\x02', 1),
    ENTRY.replace(b'\x08\x01', b'\x0a\x01x', 1),
    ENTRY + b'\x18\x01',  # Another shard.
    ENTRY + b'\x20' + varint(93), ENTRY + b'\x20' + varint(2**62)] + [
        b'\x08\x01' + shape + b'\x28\x08' for shape in [
            _dims(3), _dims(2**62), _dims(*9 * [1] + [2]),
            b'\x12\x02\x18\x01', b'\x12\x0d\x12\x0b\x08' + b'\xff' * 9 + b'\x01'
        ]] + [
            b'\x08\x01' + _dims(0, 2**40, 2**40),
            b'\x08\x07' + _dims(2**40, 2) + b'\x28\x08'])
def test_entries_that_are_refused(entry, tmp_path):
  """TensorFlow's own reader ends the process at some of these."""
  with pytest.raises(ValueError):
    _read(tmp_path, [HEADER, (b'w', entry)])
