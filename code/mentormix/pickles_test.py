"""Tests of reading pickles without running them."""
import os
import pickle

import numpy as np
import pytest

from mentormix import pickles

PROTOCOLS = (2, 3, 4)
DTYPES = ('i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '>i2', '>i8')


def read(data):
  return pickles.Reader(data).read()


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_plain_data(protocol):
  value = {'a': [0, -1, 255, 65535, -2**31, 2**40, -2**70], 'b': (None, True),
           'c': b'bytes', 'd': 'text \u00e4', 'e': {},
           'f': [(1,), (1, 2, 3, 4)]}
  assert read(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('dtype', DTYPES)
def test_integer_arrays(protocol, dtype):
  for shape in ((6,), (2, 3), ()):
    value = np.arange(100, 100 + int(np.prod(shape))).reshape(shape).astype(
        dtype)
    found = pickles.array(read(pickle.dumps(value, protocol=protocol)))
    np.testing.assert_array_equal(found, value)
    assert found.dtype == value.dtype and found.shape == shape
  in_columns = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
  np.testing.assert_array_equal(
      pickles.array(read(pickle.dumps(in_columns, protocol=protocol))),
      in_columns)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_dictionary_inside_an_array(protocol):
  value = np.array({'x': np.arange(3), 'y': [1, 2]})
  found = pickles.array(read(pickle.dumps(value, protocol=protocol)))
  assert found['y'] == [1, 2]
  np.testing.assert_array_equal(pickles.array(found['x']), np.arange(3))


@pytest.mark.parametrize('value', [
    np.zeros(3), np.zeros(3, bool), np.zeros(3, 'S4'), np.array([{}, {}]),
    np.zeros(3, 'M8[s]'), np.zeros(3, [('x', 'i4')]), [1], 'x', None])
def test_other_arrays_are_none(value):
  assert pickles.array(read(pickle.dumps(value, protocol=2))) is None


@pytest.mark.parametrize('change', [
    (b'K\x03\x85', b'K\x04\x85'),  # More elements than there are bytes,
    (b'K\x03\x85', b'J\xff\xff\xff\xff\x85'),  # a negative number,
    (b'K\x03\x85', b'\x88\x88\x86'),
    (b'u1', b'O8'), (b'u1', b'f1'), (b'u1', b'i4')])
def test_arrays_that_do_not_fit_together(change):
  data = pickle.dumps(np.zeros(3, np.uint8), protocol=2)
  assert change[0] in data
  assert pickles.array(read(data.replace(*change))) is None


@pytest.mark.parametrize('size', [1 << 16, 1 << 62, 1 << 200])
def test_sizes_of_an_array_without_elements(size):
  array = pickles.Request('array', ())
  dtype = pickles.Request('dtype', ('u1', 0, 1))
  for shape in ((0, size), (size, 0), (0, size, size, size)):
    array.state = (1, shape, dtype, False, b'')
    assert pickles.array(array) is None
  array.state = (1, (0, 3072), dtype, False, b'')
  assert pickles.array(array).shape == (0, 3072)


def test_half_a_character():
  with pytest.raises(ValueError):
    read(b'X\x03\x00\x00\x00\xed\xa0\x80.')


def test_several_pickles_in_a_row():
  reader = pickles.Reader(pickle.dumps([1], protocol=2)
                          + pickle.dumps('x', protocol=4) + b'rest')
  assert (reader.read(), reader.read()) == ([1], 'x')
  assert reader.position == len(pickle.dumps([1], protocol=2)
                                + pickle.dumps('x', protocol=4))


def tensor(offset=b'K\x01', size=b'K\x02', stride=b'K\x01', kind=b'Int'):
  """A tensor of torch, as torch.save pickles it; its storage has key 7."""
  storage = b'(X\x07\x00\x00\x00storagectorch\n' + kind + b'Storage\n'
  storage += b'X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x03tQ'
  return (b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(' + storage + offset
          + size + b'\x85' + stride + b'\x85\x89'
          + b'ccollections\nOrderedDict\n)RtR.')


def test_tensors():
  storages = {'7': np.array([5, 6, 7], '<i4').tobytes()}
  found = pickles.tensor(read(tensor()), storages)
  assert found.tolist() == [6, 7] and found.dtype == np.int32
  short = pickles.tensor(read(tensor(kind=b'Short')), storages)
  assert short.dtype == np.int16 and len(short) == 2
  for bad in (tensor(offset=b'K\x02'), tensor(size=b'J\xff\xff\xff\xff'),
              tensor(stride=b'K\x02'), tensor(kind=b'Long')):
    assert pickles.tensor(read(bad), storages) is None
  assert pickles.tensor(read(tensor()), {}) is None
  assert pickles.tensor(read(b']Q.'.replace(b']', b')')), storages) is None
  assert pickles.tensor([1], storages) is None


class Call(object):
  """Pickles to a call of `function`."""

  def __init__(self, function, *args):
    self._call = function, args

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_calls_are_refused(protocol, tmp_path):
  trace = str(tmp_path / 'ran')
  attack = pickle.dumps(Call(os.system, 'touch ' + trace), protocol=protocol)
  with pytest.raises(ValueError):
    read(attack)
  assert not os.path.exists(trace)
  pickle.loads(attack)  # It would run elsewhere.
  assert os.path.exists(trace)


@pytest.mark.parametrize('data', [
    b'cbuiltins\neval\n.', b'cos\nsystem\n.', b'ctorch\nload\n.',
    b'ctorch._utils\n_rebuild_tensor\n.', b'ccollections\nCounter\n.',
    b'ccollections\nOrderedDict.update\n.', b'cnumpy\nload\n.',
    b'ccollections\nOrderedDict\n)\x81.',  # NEWOBJ,
    b'ccollections\nOrderedDict\n)R}b.',  # BUILD on a dictionary,
    b'K\x01Q.', b'Pname\n.'])  # persistent ids that are no tuples.
def test_everything_else_is_refused(data):
  with pytest.raises(ValueError):
    read(data)
