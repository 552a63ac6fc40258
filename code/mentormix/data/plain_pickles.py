"""Plain values from pickles that are not trusted.

A pickle is a program, and those with data sets and labels come from the
internet. They are read by Python's own unpickler with most of its instructions
removed. The others build numbers, strings, lists, tuples and dictionaries. A
call that builds an array or a tensor is recorded, and this module makes the
array from the record; any other call is refused.
"""
import io
import pickle
import struct

import numpy as np

TORCH_MAGIC = 0x1950a86a20f9469cfc6c  # Starts what torch saved before 1.6.

_MAX_READS = 4000000  # The longest pickle of a known data set takes 500,000.
_INTEGERS = ('i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8')
_KNOWN = {
    ('numpy.core.multiarray', '_reconstruct'): 'array',
    ('numpy._core.multiarray', '_reconstruct'): 'array',
    ('numpy', 'ndarray'): 'ndarray',
    ('numpy', 'dtype'): 'dtype',
    ('_codecs', 'encode'): 'encode',  # How protocol 2 writes bytes.
    ('collections', 'OrderedDict'): 'dict',
    ('torch._utils', '_rebuild_tensor_v2'): 'tensor',
    ('torch', 'LongStorage'): 'i8',
    ('torch', 'IntStorage'): 'i4',
    ('torch', 'ShortStorage'): 'i2',
    ('torch', 'CharStorage'): 'i1',
    ('torch', 'ByteStorage'): 'u1',
}
_ALLOWED = (
    'PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 '
    'BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST '
    'EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS '
    'GLOBAL STACK_GLOBAL BINPERSID BINPUT LONG_BINPUT MEMOIZE BINGET '
    'LONG_BINGET')


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
    source = _Source(data)
    value = _Unpickler(source, len(data)).load()
    if value == TORCH_MAGIC:  # A version and a machine follow, then the value.
      _, _, value = (_Unpickler(source, len(data)).load() for _ in range(3))
    return _plain(value, storages or {})
  except MemoryError:
    raise
  except Exception as error:  # Damaged data can cause any error.
    raise ValueError(str(error) or type(error).__name__)


class _Source(io.BytesIO):
  """The bytes of a pickle; the end of them is an error, and so are too many."""
  _reads = 0

  def read(self, size):
    self._reads += 1
    if self._reads > _MAX_READS:
      raise ValueError('it is too long')
    piece = super().read(size)
    if len(piece) < size:
      raise ValueError('it ends too early')
    return piece


class _Request:
  """Something that a pickle asks for: recorded, not done.

  Attributes:
    name: a value of `_KNOWN`, or 'storage'.
    args: of the call; None for the function itself.
    state: what the pickle sets afterwards, if anything.
  """
  __slots__ = ('name', 'args', 'state')

  def __init__(self, name, args=None):
    self.name = name
    self.args = args
    self.state = None


class _Dict(dict):
  """A dictionary with keys that are quick to hash; nested tuples are not."""

  def __setitem__(self, key, value):
    if not isinstance(key, (bytes, str)):
      raise ValueError('it has a key that is not a string')
    super().__setitem__(key, value)


class _Instructions(dict):
  """Instruction -> what carries it out; any other instruction is refused."""

  def __missing__(self, code):
    raise ValueError(f'it has the instruction {code}, which is refused')


def _load_text(layout):
  """Unlike Python's, it refuses half a character."""
  def load_text(unpickler):
    size, = struct.unpack(layout, unpickler.read(struct.calcsize(layout)))
    unpickler.append(unpickler.read(size).decode('utf-8'))
  return load_text


class _Unpickler(pickle._Unpickler):  # pylint: disable=protected-access
  """Python's unpickler without any instruction that runs code."""

  def __init__(self, source, size):
    super().__init__(source, encoding='bytes')
    self._encodable = size

  def find_class(self, module, name):
    if (module, name) not in _KNOWN:
      raise ValueError(
          f'it asks for {f"{module}.{name}"!r:.80}, which is refused')
    return _Request(_KNOWN[module, name])

  def persistent_load(self, pid):
    kind, storage_type, key = pid[:3]
    if (kind != 'storage' or not isinstance(storage_type, _Request)
        or not isinstance(key, str)):
      raise ValueError('it asks for something outside it')
    return _Request('storage', (storage_type.name, key))

  def load_reduce(self):
    """Records a call."""
    args = self.stack.pop()
    function = self.stack[-1]
    if (not isinstance(function, _Request) or function.args is not None
        or not isinstance(args, tuple)):
      raise ValueError('it calls something that is not a function')
    if function.name == 'encode':
      self.stack[-1] = self._encode(*args)
    elif function.name == 'dict' and not args:
      self.stack[-1] = _Dict()
    else:
      self.stack[-1] = _Request(function.name, args)

  def _encode(self, text, encoding):
    self._encodable -= len(text)  # The same text, many times, fills memory.
    if encoding not in ('latin1', 'latin-1') or self._encodable < 0:
      raise ValueError('it encodes a string in an unusual way')
    return text.encode('latin1')

  def load_build(self):
    """Records a state."""
    state = self.stack.pop()
    request = self.stack[-1]
    if (not isinstance(request, _Request) or request.args is None
        or request.state is not None):
      raise ValueError('it sets the state of something that has none')
    request.state = state

  dispatch = _Instructions(
      (code, pickle._Unpickler.dispatch[code])  # pylint: disable=protected-access
      for code in (getattr(pickle, name)[0] for name in _ALLOWED.split()))
  dispatch.update({
      pickle.FRAME[0]: lambda self: self.read(8),
      pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()),
      pickle.SHORT_BINUNICODE[0]: _load_text('<B'),
      pickle.BINUNICODE[0]: _load_text('<I'),
      pickle.BINUNICODE8[0]: _load_text('<Q'),
      pickle.REDUCE[0]: load_reduce,
      pickle.BUILD[0]: load_build,
  })


def _plain(value, storages, inside=False):
  """A value with arrays in place of requests, one level deep."""
  if isinstance(value, _Request):
    value = (_tensor(value, storages) if value.name == 'tensor'
             else _array(value))
  if isinstance(value, dict):
    return None if inside else {_string(key): _plain(item, storages, True)
                                for key, item in value.items()}
  return value


def _array(request):
  """The array or dictionary of a NumPy array; None for other types."""
  if request.name != 'array':
    return None
  _, shape, dtype, in_columns, content = request.state
  name, order = _string(dtype.args[0]), _string(dtype.state[1])
  if name == 'O8' and shape == () and len(content) == 1:
    return content[0] if isinstance(content[0], dict) else None
  if (name.lstrip('|') not in _INTEGERS or order not in ('<', '>', '|', '=')
      or not _are_sizes(shape)):
    return None
  array = np.frombuffer(content, order + name.lstrip('|'))
  return array.reshape(shape, order='F' if in_columns else 'C')


def _tensor(request, storages):
  """The vector of a torch tensor; None for other shapes and types."""
  storage, offset, shape, stride = request.args[:4]
  if storage.name != 'storage':
    raise ValueError('it has a tensor without a storage')
  name, key = storage.args
  if name not in _INTEGERS or stride != (1,) or not _are_sizes(
      (offset,) + shape):
    return None
  size, = shape
  return np.frombuffer(storages.get(key, b''), f'<{name}', size,
                       offset * int(name[1]))


def _are_sizes(numbers):
  return all(isinstance(number, int) and number >= 0 for number in numbers)


def _string(value):
  """Python 2 wrote bytes where Python 3 writes str."""
  return value.decode('latin1') if isinstance(value, bytes) else value
