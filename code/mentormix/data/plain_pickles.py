"""Plain values from untrusted pickles.

A pickle is a program that can call anything that it can find. Here it finds
only a few functions, whose calls are recorded in place of being made. This
module then makes arrays from the records.
"""
import io
import pickle

import numpy as np

_TORCH_MAGIC = 0x1950a86a20f9469cfc6c  # Starts what torch saved before 1.6.


def load(data):
  """Reads a pickle of protocol 2 to 5, or what torch saved before 1.6.

  Args:
    data: bytes.

  Returns:
    A number, string, list, tuple or dictionary. Keys are str. An array of
    integers is a NumPy array; an object array is the dictionary that it holds,
    or a list; other arrays and dictionaries inside a dictionary are None.

  Raises:
    ValueError: the data are damaged or ask for something that is refused.
  """
  try:
    stream = io.BytesIO(data)
    value = _Unpickler(stream, encoding='bytes').load()
    if isinstance(value, int) and value == _TORCH_MAGIC:
      # A version and a machine follow, then the value.
      _, _, value = (_Unpickler(stream, encoding='bytes').load()
                     for _ in range(3))
    return _plain(value)
  except Exception as error:  # Damaged data can cause any error.
    raise ValueError(str(error) or type(error).__name__)


class _Call:
  """A call that a pickle asks for, and the state that it sets afterwards."""

  def __init__(self, *args):
    self.args = args

  def __setstate__(self, state):
    self.state = state


def _from_buffer(content, dtype, shape=(-1,), order='C'):
  """The array that protocol 5 stores; None if it is not of integers."""
  name, byte_order = (_string(text).replace('|', '')
                      for text in (dtype.args[0], dtype.state[1]))
  if name[0] not in 'iu':
    return None
  return np.frombuffer(content, byte_order + name).reshape(shape, order=order)


def _scalar(dtype, content):
  """A number of NumPy; None if it is not an integer."""
  array = _from_buffer(content, dtype)
  return None if array is None else int(array[0])


_FUNCTIONS = {
    ('collections', 'OrderedDict'): dict,
    # How protocol 2 writes bytes.
    ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),
    ('numpy.core.multiarray', '_reconstruct'): _Call,
    ('numpy._core.multiarray', '_reconstruct'): _Call,
    ('numpy', 'ndarray'): _Call,
    ('numpy', 'dtype'): _Call,
    ('numpy.core.multiarray', 'scalar'): _scalar,
    ('numpy._core.multiarray', 'scalar'): _scalar,
    ('numpy.core.numeric', '_frombuffer'): _from_buffer,
    ('numpy._core.numeric', '_frombuffer'): _from_buffer,
}


class _Unpickler(pickle._Unpickler):
  """Python's unpickler that finds only functions without effects.

  The one in C would allocate whatever memory a damaged pickle asks for. Python
  3.7 does not know protocol 5 on its own.
  """
  dispatch = dict(pickle._Unpickler.dispatch)

  def load_proto(self):
    self.proto = self.read(1)[0]
    if self.proto > 5:
      raise ValueError(f'pickle protocol {self.proto} is unknown')

  def load_bytearray8(self):
    self.append(self.read(int.from_bytes(self.read(8), 'little')))

  dispatch[pickle.PROTO[0]] = load_proto
  dispatch[0x96] = load_bytearray8  # BYTEARRAY8.
  dispatch[0x98] = lambda self: None  # READONLY_BUFFER: the bytes stay.

  def find_class(self, module, name):
    if (module, name) not in _FUNCTIONS:
      raise ValueError(
          f'it asks for {f"{module}.{name}"!r:.80}, which is refused')
    return _FUNCTIONS[module, name]


def _plain(value, inside=False):
  """A value with arrays in place of calls, one level deep."""
  if isinstance(value, _Call):
    value = _array(value)
  if isinstance(value, dict):
    return None if inside else {_string(key): _plain(item, True)
                                for key, item in value.items()}
  return value


def _array(call):
  """The array, list or dictionary of a NumPy array; None for other types."""
  _, shape, dtype, in_columns, content = call.state
  if _string(dtype.args[0]) == 'O8':
    if len(content) == 1 and isinstance(content[0], dict):
      return content[0]
    return content if len(shape) == 1 else None
  return _from_buffer(content, dtype, shape, 'F' if in_columns else 'C')


def _string(value):
  """Python 2 wrote bytes where Python 3 writes str."""
  return value.decode('latin1') if isinstance(value, bytes) else value
