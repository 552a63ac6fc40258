"""Tests of reading pickles without running them."""
import os
import pickle

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from mentormix.data import plain_pickles

DTYPES = ('i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '>i2', '>i8')


@pytest.fixture(name='protocol', params=[2, 3, 4])
def fixture_protocol(request):
  return request.param


def test_plain_data(protocol):
  value = {'a': [0, -1, 255, 65535, -2**31, 2**40, -2**70], 'b': (None, True),
           'c': b'bytes', 'd': 'text \u00e4', 'f': [(1,), (1, 2, 3, 4), {}]}
  assert plain_pickles.load(pickle.dumps(value, protocol=protocol)) == value
  keys = pickle.dumps({b'bytes': 1}, protocol=protocol)
  assert plain_pickles.load(keys) == {'bytes': 1}


@pytest.mark.parametrize('dtype', DTYPES)
def test_integer_arrays(protocol, dtype):
  matrix = np.arange(100, 106).reshape(2, 3).astype(dtype)
  values = {'vector': matrix[0], 'matrix': matrix, 'scalar': matrix[0, 0, None],
            'in columns': np.asfortranarray(matrix), 'same': matrix}
  found = plain_pickles.load(pickle.dumps(values, protocol=protocol))
  for name, value in values.items():
    np.testing.assert_array_equal(found[name], value)
    assert found[name].dtype == value.dtype


def test_a_dictionary_inside_an_array(protocol):
  value = np.array({'x': np.arange(3), 'y': [1, 2], 'z': {}})
  found = plain_pickles.load(pickle.dumps(value, protocol=protocol))
  assert found['x'].tolist() == [0, 1, 2] and found['y'] == [1, 2]
  assert found['z'] is None


@pytest.mark.parametrize('value', [
    np.zeros(3), np.zeros(3, bool), np.zeros(3, 'S4'), np.array([[1], [2]], object),
    np.zeros(3, 'M8[s]'), np.zeros(3, [('x', 'i4')])])
def test_other_arrays_are_none(value):
  data = pickle.dumps({'other': value, 'x': np.arange(2)}, protocol=2)
  found = plain_pickles.load(data)
  assert found['other'] is None and found['x'].tolist() == [0, 1]


def test_arrays_that_do_not_fit_together():
  data = pickle.dumps(np.zeros(3, np.uint8), protocol=2)
  for old, new in ((b'K\x03\x85', b'K\x04\x85'), (b'u1', b'i4')):
    with pytest.raises(ValueError):
      plain_pickles.load(data.replace(old, new))


class Call:
  """Pickles to a call of `function`."""

  def __init__(self, function, *args):
    self._call = function, args

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('protocol', range(5))
def test_calls_are_refused(protocol, tmp_path):
  trace = str(tmp_path / 'ran')
  attack = pickle.dumps(Call(os.system, 'touch ' + trace), protocol=protocol)
  with pytest.raises(ValueError, match='refused'):
    plain_pickles.load(attack)
  assert not os.path.exists(trace)
  pickle.loads(attack)  # It would run elsewhere.
  assert os.path.exists(trace)


@pytest.mark.parametrize('data', [
    b'cbuiltins\neval\n.', b'cos\nsystem\n.', b'ctorch\nload\n.',
    b'ctorch._utils\n_rebuild_tensor\n.', b'ccollections\nCounter\n.',
    b'ccollections\nOrderedDict.update\n.', b'cnumpy\nload\n.',
    b'ccollections\nOrderedDict\n)R}q\x00h\x00h\x00sb.',  # BUILD.
    b'(ios\nsystem\n.', b'\x82\x01.',  # INST, EXT1.
    b'(cos\nsystem\no.', b'cos\nsystem\n)\x81.',  # OBJ, NEWOBJ.
    b'cnumpy\nndarray\n)R)R.', b'K\x01Q.', b'Pname\n.'])
def test_everything_else_is_refused(data):
  with pytest.raises(ValueError):
    plain_pickles.load(data)


VALID = pickle.dumps({b'x': np.arange(5), 'y': [1, 'two', (3,)]}, protocol=2)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.integers(0, len(VALID) - 1), st.binary(max_size=3))
def test_damage_gives_values_or_an_error(position, put):
  for rest in (b'', VALID[position + len(put):]):
    try:
      plain_pickles.load(VALID[:position] + put + rest)
    except ValueError:
      pass
