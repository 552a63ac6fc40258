"""Arrays from the files that torch saved before version 1.6, without torch.

Such a file is a row of pickles: a magic number, a version, a machine, the value
and the keys of the storages. The numbers of each storage follow. A pickle is a
program that can call anything that it can find. Here it finds four names, and
what it calls is only recorded.
"""
import collections
import io
import pickle
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950a86a20f9469cfc6c
_TYPES = {'FloatStorage': '<f4', 'LongStorage': '<i8'}


class _Type(NamedTuple):
  """The type of a storage, which cannot be called."""
  dtype: str


class _Storage(NamedTuple):
  """Numbers that follow the pickles."""
  dtype: str
  key: str
  size: int  # Numbers.


class _Tensor(NamedTuple):
  """What a tensor shows of a storage."""
  storage: _Storage
  offset: int  # Of its first number.
  shape: Any
  strides: Any  # In numbers; not always those of rows.
  requires_grad: Any = None
  hooks: Any = None
  metadata: Any = None


class _Unpickler(pickle._Unpickler):
  """Python's unpickler that finds only what a dictionary of tensors needs.

  The one in C would allocate whatever memory a damaged pickle asks for.
  """

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _Tensor
    if module == 'torch' and name in _TYPES:
      return _Type(_TYPES[name])
    raise ValueError(
        f'it asks for {f"{module}.{name}"!r:.80}, which is refused')

  def persistent_load(self, pid):
    kind, dtype, key, _, size, view = pid
    if kind != 'storage' or view is not None or not isinstance(dtype, _Type):
      raise ValueError('it holds something other than tensors')
    return _Storage(dtype.dtype, key, size)


def load(data):
  """Reads a dictionary of tensors, as torch.save wrote it before 1.6.

  Args:
    data: bytes.

  Returns:
    Name -> array, float32 or int64, in rows.

  Raises:
    ValueError: the data are damaged or ask for something that is refused.
  """
  try:
    stream = io.BytesIO(data)
    magic, _, _, tensors, keys = (
        _Unpickler(stream, encoding='utf-8').load() for _ in range(5))
    if magic != _MAGIC:
      raise ValueError('it does not begin as a file of torch')
    storages = {tensor.storage.key: tensor.storage
                for tensor in tensors.values()}
    values = {}
    for key in keys:
      values[key] = _values(stream, storages[key])
    return {name: _array(values[tensor.storage.key], tensor)
            for name, tensor in tensors.items()}
  except Exception as error:  # Damaged data can cause any error.
    raise ValueError(str(error) or type(error).__name__)


def _values(stream, storage):
  """Reads the numbers of a storage, which come after their count."""
  count = int.from_bytes(stream.read(8), 'little')
  content = stream.read(count * np.dtype(storage.dtype).itemsize)
  values = np.frombuffer(content, storage.dtype)
  if not len(values) == count == storage.size:
    raise ValueError('it is truncated')
  return values


def _array(values, tensor):
  """The numbers that a tensor shows, copied; ValueError if some are missing."""
  shape, strides = tuple(tensor.shape), tuple(tensor.strides)
  if len(shape) != len(strides) or min(shape + strides, default=0) < 0:
    raise ValueError('a tensor has an impossible shape')
  size, last = 1, tensor.offset
  for n, stride in zip(shape, strides):
    size, last = size * n, last + (n - 1) * stride
  if not 0 <= tensor.offset <= last < len(values) or (
      not 0 < size <= len(values)):
    raise ValueError('a tensor does not fit its storage')
  return np.lib.stride_tricks.as_strided(
      values[tensor.offset:], shape,
      [stride * values.itemsize for stride in strides]).copy()
