"""Reading what torch saved, without torch."""
import collections
import io
import pickle
import struct
import sys
import types

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from mentormix import testing
from mentormix.students import torch_file

VALUES = np.arange(12, dtype='<f4')


class _Tensor:
  """Pickled as torch pickles one that shows twelve numbers."""

  def __init__(self, key, offset, shape, strides, count=12,
               storage='FloatStorage'):
    self.args = (key, offset, shape, strides, count, storage)

  def __reduce__(self):
    key, offset, shape, strides, count, storage = self.args
    return (sys.modules['torch._utils']._rebuild_tensor_v2, (
        _Pid(('storage', getattr(sys.modules['torch'], storage), key, 'cpu',
              count, None)), offset, shape, strides, False,
        collections.OrderedDict()))


class _Pid:
  """Stands for a storage, which the pickle only names."""

  def __init__(self, pid):
    self.pid = pid


class _Pickler(pickle._Pickler):

  def persistent_id(self, obj):
    return obj.pid if isinstance(obj, _Pid) else None


@pytest.fixture(scope='module', autouse=True)
def torch():
  """A module with the names that pickles of torch hold."""
  module, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  for name in ('FloatStorage', 'LongStorage', 'HalfStorage'):
    setattr(module, name, type(name, (), {'__module__': 'torch',
                                          '__qualname__': name}))
  exec('def _rebuild_tensor_v2(*args): pass', utils.__dict__)
  utils._rebuild_tensor_v2.__module__ = 'torch._utils'
  module._utils = utils
  patch = pytest.MonkeyPatch()
  patch.setitem(sys.modules, 'torch', module)
  patch.setitem(sys.modules, 'torch._utils', utils)
  yield
  patch.undo()


def _saved(tensors, keys=('0',), count=12, values=VALUES, magic=None):
  """Bytes as of torch.save before 1.6."""
  stream = io.BytesIO()
  magic = torch_file._MAGIC if magic is None else magic
  for value in (magic, 1001, {'little_endian': True},
                collections.OrderedDict(tensors), list(keys)):
    _Pickler(stream, protocol=2).dump(value)
  for _ in keys:
    stream.write(struct.pack('<q', count) + values.tobytes())
  return stream.getvalue()


def test_tensors_by_their_strides():
  found = torch_file.load(_saved({
      'rows': _Tensor('0', 0, (3, 4), (4, 1)),
      'columns': _Tensor('0', 0, (4, 3), (1, 4)),
      'part': _Tensor('0', 5, (2,), (3,)),
      'scalar': _Tensor('0', 7, (), ())}))
  matrix = VALUES.reshape(3, 4)
  np.testing.assert_array_equal(found['rows'], matrix)
  np.testing.assert_array_equal(found['columns'], matrix.T)
  assert found['columns'].flags.c_contiguous
  assert found['part'].tolist() == [5, 8] and found['scalar'] == 7
  assert {value.dtype for value in found.values()} == {np.dtype('f4')}
  whole = _saved({'n': _Tensor('0', 0, (), (), 1, 'LongStorage')}, count=1,
                 values=np.array([2 ** 40]))
  assert torch_file.load(whole)['n'] == 2 ** 40


@pytest.mark.parametrize('tensor', [
    _Tensor('0', 0, (3, 5), (5, 1)), _Tensor('0', 1, (3, 4), (4, 1)),
    _Tensor('0', -1, (2,), (1,)), _Tensor('0', 11, (2,), (-1,)),
    _Tensor('0', 0, (-1,), (1,)), _Tensor('0', 0, (2, 2), (1,)),
    _Tensor('0', 0, (1 << 40, 1 << 40), (0, 0)), _Tensor('0', 0, (0,), (1,)),
    _Tensor('0', 0, (12,), (1,), 13), _Tensor('1', 0, (12,), (1,)),
    _Tensor('0', 0, (12,), (1,), 12, 'HalfStorage')])
def test_tensors_that_do_not_fit(tensor):
  with pytest.raises(ValueError):
    torch_file.load(_saved({'x': tensor}))


class _Attack:

  def __reduce__(self):
    return exec, ('raise SystemExit',)


def test_other_pickles_are_refused():
  with pytest.raises(ValueError, match='exec.*refused'):
    torch_file.load(_saved({'x': _Attack()}))
  with pytest.raises(ValueError, match='not begin as a file of torch'):
    torch_file.load(_saved({'x': _Tensor('0', 0, (2,), (1,))}, magic=5))
  for data in (b'', b'PK\3\4', pickle.dumps(3)):
    with pytest.raises(ValueError):
      torch_file.load(data)


@hypothesis.given(st.data())
@hypothesis.settings(deadline=None, max_examples=100)
def test_damage(data):
  original = _saved({'x': _Tensor('0', 0, (3, 4), (4, 1))})
  changed = data.draw(testing.damaged(original))
  try:
    found = torch_file.load(changed)
  except ValueError:
    return
  assert sum(value.size for value in found.values()) <= len(original)
