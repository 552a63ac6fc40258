"""Pickles, read without being run.

A pickle is a program, and those with data sets and labels come from the
internet. So nothing here unpickles: `Reader` understands the few instructions
that put together numbers, strings, lists and dictionaries, notes down the
request for an array or a tensor without carrying it out, and refuses everything
else.
"""
import collections
import struct

import numpy as np

# The longest pickle of a data set has some 200,000 instructions.
_MAX_INSTRUCTIONS = 1000000
_MAX_EMPTY = 1 << 15  # A size of an array without elements.

_KNOWN_GLOBALS = {
    ('numpy.core.multiarray', '_reconstruct'): 'array',
    ('numpy._core.multiarray', '_reconstruct'): 'array',
    ('numpy', 'ndarray'): 'ndarray',
    ('numpy', 'dtype'): 'dtype',
    ('_codecs', 'encode'): 'encode',  # How protocol 2 spells bytes.
    ('collections', 'OrderedDict'): 'dict',
    ('torch._utils', '_rebuild_tensor_v2'): 'tensor',
    ('torch', 'LongStorage'): 'i8',
    ('torch', 'IntStorage'): 'i4',
    ('torch', 'ShortStorage'): 'i2',
    ('torch', 'CharStorage'): 'i1',
    ('torch', 'ByteStorage'): 'u1',
}

_INTEGERS = ('i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8')

Name = collections.namedtuple('Name', 'name')


class Request(object):
  """Something that a pickle wants built: written down, not done.

  Attributes:
    function: a value of `_KNOWN_GLOBALS`; 'persistent' for a reference to
      something outside the pickle.
    args: a tuple.
    state: what the pickle sets afterwards; None without.
  """
  __slots__ = ('function', 'args', 'state')

  def __init__(self, function, args):
    self.function = function
    self.args = args
    self.state = None


def array(value):
  """The array that a request stands for.

  Args:
    value: anything that `Reader.read` gives.

  Returns:
    An array of integers; the one thing inside an object array without
    dimensions, which is how numpy saves a dictionary; None if it is neither.
  """
  if not isinstance(value, Request) or value.function != 'array':
    return None
  if not isinstance(value.state, tuple) or len(value.state) != 5:
    return None
  _, shape, dtype, in_columns, content = value.state
  if not isinstance(dtype, Request) or dtype.function != 'dtype':
    return None
  name = dtype.args[0] if dtype.args else None
  name = name.decode('latin1') if isinstance(name, bytes) else name
  if name == 'O8' and shape == () and isinstance(content, list):
    return content[0] if len(content) == 1 else None
  return _integers(name, dtype.state, shape, in_columns, content)


def _integers(name, state, shape, in_columns, content):
  """The array of `array`; None if the parts do not fit together."""
  if not isinstance(name, str) or name.lstrip('|') not in _INTEGERS:
    return None
  order = state[1] if isinstance(state, tuple) and len(state) > 1 else '|'
  order = order.decode('latin1') if isinstance(order, bytes) else order
  if order not in ('<', '>', '|', '=') or not isinstance(content, bytes):
    return None
  dtype = np.dtype(order + name.lstrip('|'))
  if not isinstance(shape, tuple) or not all(
      isinstance(size, int) and size >= 0 for size in shape):
    return None
  count, rest = divmod(len(content), dtype.itemsize)
  # Without a single element, the other sizes could be of any size.
  if (rest or len(shape) > 4 or _product(shape) != count
      or not count and any(size > _MAX_EMPTY for size in shape)):
    return None
  return np.frombuffer(content, dtype).reshape(
      shape, order='F' if in_columns else 'C')


def _product(sizes):
  result = 1
  for size in sizes:
    result *= size
  return result


def tensor(value, storages):
  """The vector of integers that a torch tensor stands for.

  Args:
    value: anything that `Reader.read` gives.
    storages: key -> bytes, for the tensors that lie outside the pickle.

  Returns:
    An array [N]; None if it is not such a tensor.
  """
  if (not isinstance(value, Request) or value.function != 'tensor'
      or len(value.args) < 4):
    return None
  storage, offset, shape, stride = value.args[:4]
  if (not isinstance(storage, Request) or storage.function != 'persistent'
      or len(storage.args) < 3):
    return None
  kind, storage_type, key = storage.args[:3]
  if (kind != 'storage' or not isinstance(storage_type, Name)
      or storage_type.name not in _INTEGERS or not isinstance(key, str)):
    return None
  content = storages.get(key, b'')
  itemsize = int(storage_type.name[1])
  if (stride != (1,) or not isinstance(shape, tuple) or len(shape) != 1
      or not all(isinstance(x, int) and x >= 0 for x in (offset,) + shape)
      or (offset + shape[0]) * itemsize > len(content)):
    return None
  return np.frombuffer(content, '<' + storage_type.name, shape[0],
                       offset * itemsize)


class Reader(object):
  """Reads pickles that hold plain data and arrays, protocols 2 to 4.

  Compared with an Unpickler that may find only harmless names, this one also
  has no memory or hash tables of the pickle's choosing: an Unpickler takes one
  instruction to reserve 32 GB.

  Attributes:
    position: where the pickle read last ends.
  """

  # Instruction -> format of its number, or of the length before its text.
  _NUMBERS = {b'K': '<B', b'M': '<H', b'J': '<i'}
  _BYTES = {b'U': '<B', b'T': '<i', b'C': '<B', b'B': '<I', b'\x8e': '<Q'}
  _TEXTS = {b'\x8c': '<B', b'X': '<I', b'\x8d': '<Q'}
  _PUTS = {b'q': '<B', b'r': '<I'}
  _GETS = {b'h': '<B', b'j': '<I'}
  _IGNORED = {b'\x80': '<B', b'\x95': '<Q'}  # Protocol, length of a frame.
  _CONSTANTS = {b'N': None, b'\x88': True, b'\x89': False}
  _EMPTY = {b'}': dict, b']': list, b')': tuple}
  _TUPLES = {b'\x85': 1, b'\x86': 2, b'\x87': 3}

  def __init__(self, data):
    self.position = 0
    self._data = data
    self._encoded = 0

  def read(self):
    """What the pickle at `position` holds.

    Returns:
      Numbers, strings, bytes, tuples, lists, dictionaries, or a `Request`.

    Raises:
      Exception: of any class; the data are damaged or ask for more.
    """
    self._stack = []
    self._marks = []  # Where the stack stood at each open bracket.
    self._memo = {}
    for _ in range(_MAX_INSTRUCTIONS):
      code = self._take(1)
      if code == b'.':
        return self._stack.pop()
      self._step(code)
    raise ValueError('it is too long')

  def _step(self, code):
    """Carries out one instruction."""
    stack = self._stack
    if code in self._NUMBERS:
      stack.append(self._number(self._NUMBERS[code]))
    elif code in self._BYTES:
      stack.append(self._take(self._number(self._BYTES[code])))
    elif code in self._TEXTS:
      stack.append(self._take(self._number(self._TEXTS[code])).decode('utf-8'))
    elif code in self._PUTS:
      self._memo[self._number(self._PUTS[code])] = stack[-1]
    elif code == b'\x94':
      self._memo[len(self._memo)] = stack[-1]
    elif code in self._GETS:
      stack.append(self._memo[self._number(self._GETS[code])])
    elif code in self._IGNORED:
      self._number(self._IGNORED[code])
    elif code in self._CONSTANTS:
      stack.append(self._CONSTANTS[code])
    elif code in self._EMPTY:
      stack.append(self._EMPTY[code]())
    elif code in self._TUPLES:
      stack.append(tuple(self._pop(self._TUPLES[code])))
    elif code == b'(':
      self._marks.append(len(stack))
    elif code == b't':
      stack.append(tuple(self._pop_to_mark()))
    elif code == b'a':
      self._extend(self._pop(1))
    elif code == b'e':
      self._extend(self._pop_to_mark())
    elif code == b's':
      self._update(self._pop(2))
    elif code == b'u':
      self._update(self._pop_to_mark())
    elif code == b'c':
      self._global(self._line(), self._line())
    elif code == b'\x93':
      self._global(*self._pop(2))
    elif code == b'\x8a':
      stack.append(int.from_bytes(self._take(self._number('<B')), 'little',
                                  signed=True))
    elif code == b'R':
      stack.append(self._request(*self._pop(2)))
    elif code == b'Q':
      stack.append(self._request(Name('persistent'), *self._pop(1)))
    elif code == b'b':
      state, = self._pop(1)
      if not isinstance(stack[-1], Request) or stack[-1].state is not None:
        raise ValueError('it sets the state of something')
      stack[-1].state = state
    else:
      raise ValueError('it has the instruction %r' % code)

  def _take(self, size):
    end = self.position + size
    if not self.position <= end <= len(self._data):
      raise ValueError('it ends too early')
    piece = self._data[self.position:end]
    self.position = end
    return piece

  def _number(self, layout):
    return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

  def _line(self):
    end = self._data.index(b'\n', self.position, self.position + 100)
    return self._take(end + 1 - self.position)[:-1].decode('ascii')

  def _pop(self, count):
    if len(self._stack) < count:
      raise ValueError('it takes more than it has')
    items = self._stack[-count:]
    del self._stack[-count:]
    return items

  def _pop_to_mark(self):
    mark = self._marks.pop()
    items = self._stack[mark:]
    del self._stack[mark:]
    return items

  def _extend(self, items):
    if not isinstance(self._stack[-1], list):
      raise ValueError('it appends to something else than a list')
    self._stack[-1].extend(items)

  def _update(self, items):
    target = self._stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
      raise ValueError('it sets an item of something else than a dictionary')
    for key, value in zip(items[::2], items[1::2]):
      if not isinstance(key, (bytes, str)):
        raise ValueError('it has a key that is not a string')
      target[key] = value

  def _global(self, module, name):
    known = (isinstance(module, str) and isinstance(name, str)
             and _KNOWN_GLOBALS.get((module, name)))
    if not known:
      raise ValueError('it asks for %.60s.%.60s, which is refused'
                       % (module, name))
    self._stack.append(Name(known))

  def _request(self, function, args):
    """What calling `function` would give, for the few that are known."""
    if not isinstance(function, Name) or not isinstance(args, tuple):
      raise ValueError('it calls something')
    if function.name == 'dict' and not args:
      return {}
    if function.name != 'encode':
      return Request(function.name, args)
    text, encoding = args
    # No text is encoded twice, so the copies are bounded like the pickle.
    self._encoded += len(text)
    if encoding not in ('latin1', 'latin-1') or self._encoded > len(self._data):
      raise ValueError('it encodes a string in an unusual way')
    return text.encode('latin1')
