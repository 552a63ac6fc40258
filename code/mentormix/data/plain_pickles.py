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
  """Reads a pickle of protocol 2 to 4, or what torch saved before 1.6.

  Args:
    data: bytes.

  Returns:
    A number, string, list, tuple or dictionary. Keys are str. An array of
    integers is a NumPy array, and an object array around a dictionary is that
    dictionary; other arrays and dictionaries inside a dictionary are None.

  Raises:
    ValueError: the data are damaged or ask for something that is refused.
  """
  try:
    stream = io.BytesIO(data)
    value = _Unpickler(stream, encoding='bytes').load()
    if value == _TORCH_MAGIC:  # A version and a machine follow, then the value.
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


_FUNCTIONS = {
    ('collections', 'OrderedDict'): dict,
    # How protocol 2 writes bytes.
    ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),
    ('numpy.core.multiarray', '_reconstruct'): _Call,
    ('numpy._core.multiarray', '_reconstruct'): _Call,
    ('numpy', 'ndarray'): _Call,
    ('numpy', 'dtype'): _Call,
}


class _Unpickler(pickle._Unpickler):
  """Python's unpickler that finds only functions without effects.

  The one in C would allocate whatever memory a damaged pickle asks for.
  """

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
  """The array or dictionary of a NumPy array; None for other types."""
  _, shape, dtype, in_columns, content = call.state
  name, order = (_string(text).replace('|', '')
                 for text in (dtype.args[0], dtype.state[1]))
  if name == 'O8' and len(content) == 1:
    return content[0] if isinstance(content[0], dict) else None
  if name[0] not in 'iu':
    return None
  return np.frombuffer(content, order + name).reshape(
      shape, order='F' if in_columns else 'C')


def _string(value):
  """Python 2 wrote bytes where Python 3 writes str."""
  return value.decode('latin1') if isinstance(value, bytes) else value
