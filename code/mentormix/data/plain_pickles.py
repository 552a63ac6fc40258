"""Plain values from untrusted pickles.

A pickle is a program. Python's own unpickler reads it here with the harmless
instructions only, and what the pickle calls is not called but recorded. This
module then makes arrays from the records. All other functions are refused.
"""
import functools
import io
import pickle

import numpy as np

# pylint: disable=protected-access

TORCH_MAGIC = 0x1950a86a20f9469cfc6c  # Starts what torch saved before 1.6.

_ALLOWED = (
    'PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 '
    'BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE '
    'SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST EMPTY_TUPLE EMPTY_DICT TUPLE '
    'TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL '
    'BINPERSID BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET REDUCE BUILD')
_RECORDED = {
    ('numpy.core.multiarray', '_reconstruct'): 'array',
    ('numpy._core.multiarray', '_reconstruct'): 'array',
    ('numpy', 'ndarray'): 'ndarray',
    ('numpy', 'dtype'): 'dtype',
    ('torch._utils', '_rebuild_tensor_v2'): 'tensor',
    ('torch', 'LongStorage'): '<i8',
    ('torch', 'IntStorage'): '<i4',
    ('torch', 'ShortStorage'): '<i2',
    ('torch', 'CharStorage'): '<i1',
    ('torch', 'ByteStorage'): '<u1',
}


def load(data, storages=None):
  """Reads a pickle of protocol 2 to 4, or what torch saved before 1.6.

  Args:
    data: bytes.
    storages: key -> bytes, for the tensors that a torch file stores outside its
      pickle.

  Returns:
    A number, string, list, tuple or dictionary. Keys are str. An array of
    integers is a NumPy array, a tensor of integers is a NumPy vector, and an
    object array around a dictionary is that dictionary; other arrays and
    dictionaries inside a dictionary are None.

  Raises:
    ValueError: the data are damaged or ask for something that is refused.
  """
  try:
    stream = io.BytesIO(data)
    value = _Unpickler(stream, encoding='bytes').load()
    if value == TORCH_MAGIC:  # A version and a machine follow, then the value.
      _, _, value = (_Unpickler(stream, encoding='bytes').load()
                     for _ in range(3))
    return _plain(value, storages or {})
  except (EOFError, IndexError):
    raise ValueError('it ends too early, or is damaged')
  except Exception as error:  # Damaged data can cause any error.
    raise ValueError(str(error) or type(error).__name__)


class _Call:
  """A call that a pickle asks for.

  Attributes:
    name: a value of `_RECORDED`, or 'storage'.
    args: its arguments.
    state: what the pickle sets afterwards, if anything.
  """

  def __init__(self, name, *args):
    self.name = name
    self.args = args
    self.state = None

  def __setstate__(self, state):
    self.state = state


class _Instructions(dict):
  """Instruction -> what carries it out; all others are refused."""

  def __missing__(self, code):
    raise ValueError(f'it has the instruction {code}, which is refused')


class _Unpickler(pickle._Unpickler):
  """Python's unpickler without any instruction that runs code."""
  dispatch = _Instructions(
      (code, pickle._Unpickler.dispatch[code])
      for code in (getattr(pickle, name)[0] for name in _ALLOWED.split()))

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return dict
    if (module, name) == ('_codecs', 'encode'):  # How protocol 2 writes bytes.
      return lambda text, unused_encoding: text.encode('latin1')
    if (module, name) not in _RECORDED:
      raise ValueError(
          f'it asks for {f"{module}.{name}"!r:.80}, which is refused')
    return functools.partial(_Call, _RECORDED[module, name])

  def persistent_load(self, pid):
    return _Call('storage', *pid)


def _plain(value, storages, inside=False):
  """A value with arrays in place of calls, one level deep."""
  if isinstance(value, _Call):
    value = (_tensor(value, storages) if value.name == 'tensor'
             else _array(value))
  if isinstance(value, dict):
    return None if inside else {_string(key): _plain(item, storages, True)
                                for key, item in value.items()}
  return value


def _array(call):
  """The array or dictionary of a NumPy array; None for other types."""
  if call.name != 'array':
    return None
  _, shape, dtype, in_columns, content = call.state
  name, order = (_string(text).replace('|', '')
                 for text in (dtype.args[0], dtype.state[1]))
  if name == 'O8' and len(content) == 1:
    return content[0] if isinstance(content[0], dict) else None
  if name[0] not in 'iu':
    return None
  return np.frombuffer(content, order + name).reshape(
      shape, order='F' if in_columns else 'C')


def _tensor(call, storages):
  """The vector of a torch tensor; None for other shapes."""
  storage, offset, shape, stride = call.args[:4]
  _, storage_type, key = storage.args[:3]
  if stride != (1,):
    return None
  dtype = np.dtype(storage_type.args[0])
  return np.frombuffer(storages.get(key, b''), dtype, shape[0],
                       offset * dtype.itemsize)


def _string(value):
  """Python 2 wrote bytes where Python 3 writes str."""
  return value.decode('latin1') if isinstance(value, bytes) else value
