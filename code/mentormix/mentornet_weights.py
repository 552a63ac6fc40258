"""The weights of a MentorNet: their names, their shapes, and checkpoints.

Weights are a dict, name -> float32 array, with the names of `SHAPES`, by which
published checkpoints and the published code know them.
"""
import struct

import numpy as np

from mentormix import runtime
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

_MAX_ELEMENTS = 1000000  # Of a variable.
_MAX_INDEX = 1 << 20  # Bytes.
_MAX_KEY = 1000  # Bytes.
_TABLE_MAGIC = struct.pack('<Q', 0xdb4775248b80fb57)
_DTYPES = {1: '<f4', 2: '<f8', 3: '<i4', 9: '<i8', 19: '<f2'}  # tf.DType.

LSTM = 'mentornet/bidirectional_rnn/%s/basic_lstm_cell/%s'
_LABEL, _EPOCH = 'mentornet/label_embedding', 'mentornet/epoch_embedding'
_KERNEL, _DENSE = LSTM % ('fw', 'kernel'), 'mentornet/Variable'


def shapes(label, epoch, lstm, hidden):
  """The variables of a network of these sizes, in the published order.

  Args:
    label: (labels, width) of the label embedding.
    epoch: (epoch percentages, width) of the epoch embedding.
    lstm: size of the LSTM's state.
    hidden: size of the dense layer.

  Returns:
    Pairs (name, shape).
  """
  kernel, bias = (2 + lstm, 4 * lstm), (4 * lstm,)  # It sees two numbers.
  return (
      (_LABEL, label),
      (_EPOCH, epoch),
      (_KERNEL, kernel),
      (LSTM % ('fw', 'bias'), bias),
      (LSTM % ('bw', 'kernel'), kernel),
      (LSTM % ('bw', 'bias'), bias),
      (_DENSE, (label[1] + epoch[1] + 2 * lstm, hidden)),
      ('mentornet/Variable_1', (hidden,)),
      ('mentornet/Variable_2', (hidden, 1)),
      ('mentornet/Variable_3', (1,)),
  )


SHAPES = shapes(label=(2, 2), epoch=(100, 5), lstm=1, hidden=20)  # Published.


def check(arrays, source):
  """The weights among arrays, if they make a MentorNet of whatever size.

  Args:
    arrays: name -> array; names that are not in `SHAPES` do not count.
    source: where they come from, for the error.

  Returns:
    name -> float32 array, in the order of `SHAPES`.

  Raises:
    UserError: the line names all that are missing, or all that do not fit.
  """
  missing = [name for name, _ in SHAPES if name not in arrays]
  if missing:
    raise UserError('%s is no MentorNet: it lacks the variable%s %s' % (
        source, 's' * (len(missing) > 1), ', '.join(missing)))

  def size(name, axis):
    return max(1, (np.shape(arrays[name]) or (1,))[axis])

  # What would fit, going by these four; the other sizes follow from them.
  wanted = shapes(
      label=(size(_LABEL, 0), size(_LABEL, -1)),
      epoch=(size(_EPOCH, 0), size(_EPOCH, -1)),
      lstm=max(1, size(_KERNEL, -1) // 4), hidden=size(_DENSE, -1))
  weights, faults = {}, []
  for name, shape in wanted:
    value = np.asarray(arrays[name])
    if value.shape != shape:
      faults.append('%s has the shape %s where %s would fit'
                    % (name, list(value.shape), list(shape)))
    elif not np.issubdtype(value.dtype, np.floating):
      faults.append('%s holds %s instead of float32' % (name, value.dtype))
    elif not (np.abs(value) <= np.finfo(np.float32).max).all():  # NaN, too.
      faults.append('%s holds a number that is not finite' % name)
    else:
      weights[name] = value.astype(np.float32)
  if faults:
    raise UserError('%s is no MentorNet: %s' % (source, '; '.join(faults)))
  return weights


def read_checkpoint(prefix):
  """The weights in a checkpoint with the published names.

  TensorFlow's own reader ends the process where a checkpoint was made to harm.

  Raises:
    UserError: it is damaged, or holds no MentorNet; see `check`.
  """
  try:
    arrays = _read_arrays(prefix)
  except Exception:  # The bytes are a stranger's: anything may fail.
    raise UserError('%s is a damaged checkpoint: its .index or its .data file '
                    'is cut short, changed or missing; copy both again'
                    % prefix)
  return check(arrays, prefix)


def _read_arrays(prefix):
  """Those of `SHAPES` that a checkpoint holds, name -> array.

  The .index is a table (as in LevelDB) of protocol buffers: under '' the
  BundleHeader, under each name the BundleEntryProto, both of
  tensorflow/core/protobuf/tensor_bundle.proto.

  Raises:
    Exception: of any class; it is damaged.
  """
  with open(prefix + '.index', 'rb') as f:
    table = _read_table(f.read(_MAX_INDEX + 1))
  header = _fields(table[b''])
  arrays = {}
  for name, _ in SHAPES:
    if name.encode('ascii') not in table:
      continue
    entry = _fields(table[name.encode('ascii')])
    dtype = np.dtype(_DTYPES[entry[1][0]])
    dims = _fields(entry[2][0]).get(2, []) if 2 in entry else []
    shape = [_fields(dim)[1][0] for dim in dims]
    shard, offset = (entry.get(key, [0])[0] for key in (3, 4))
    size, = entry[5]
    count = 1
    for length in shape:
      count *= length
    if count * dtype.itemsize != size or count > _MAX_ELEMENTS or 7 in entry:
      raise ValueError('%s has other sizes, or is in slices' % name)
    with open('%s.data-%05d-of-%05d' % (prefix, shard, header[1][0]),
              'rb') as f:
      f.seek(offset)
      data = f.read(size)
    if _checksum(data) != entry[6][0]:
      raise ValueError('%s is damaged' % name)
    arrays[name] = np.frombuffer(data, dtype).reshape(shape)
  return arrays


def _read_table(data):
  """Key -> value, both bytes."""
  footer = data[-48:]
  if len(data) > _MAX_INDEX or footer[-8:] != _TABLE_MAGIC:
    raise ValueError('no table')
  at = 0
  for _ in range(2):  # Where its metadata are.
    _, at = _varint(footer, at)
  found, last = {}, -1
  for _, handle in _read_block(data, *_handle(footer[at:])):
    offset, size = _handle(handle)
    if offset <= last:
      raise ValueError('its blocks are in disorder')
    last = offset
    found.update(_read_block(data, offset, size))
  return found


def _handle(data):
  """Offset and size of a block."""
  offset, at = _varint(data, 0)
  return offset, _varint(data, at)[0]


def _read_block(data, offset, size):
  """Yields the pairs (key, value) of a block."""
  block, trailer = data[offset:offset + size], data[offset + size:][:5]
  checksum, = struct.unpack('<I', trailer[1:])
  # A byte for the compression, which checkpoints have none of.
  if trailer[0] or _checksum(block + trailer[:1]) != checksum:
    raise ValueError('a block is damaged')
  restarts, = struct.unpack('<I', block[-4:])
  end = size - 4 - 4 * restarts
  at, key = 0, b''
  while at < end:
    shared, at = _varint(block, at)
    fresh, at = _varint(block, at)
    length, at = _varint(block, at)
    if max(shared, fresh) > _MAX_KEY or at + fresh + length > end:
      raise ValueError('an entry is damaged')
    key = key[:shared] + block[at:at + fresh]
    at += fresh
    yield key, block[at:at + length]
    at += length


def _fields(data):
  """Number -> values of the fields of a protocol buffer."""
  found, at = {}, 0
  while at < len(data):
    key, at = _varint(data, at)
    if key & 7 == 0:
      value, at = _varint(data, at)
    elif key & 7 == 2:
      size, at = _varint(data, at)
      value, at = data[at:at + size], at + size
    elif key & 7 == 5:
      (value,), at = struct.unpack('<I', data[at:at + 4]), at + 4
    else:
      raise ValueError('a field of another type')
    found.setdefault(key >> 3, []).append(value)
  if at > len(data):
    raise ValueError('it ends too early')
  return found


def _varint(data, at):
  """A number in pieces of seven bits, and where it ends."""
  value = 0
  for place in range(10):
    value |= (data[at + place] & 127) << 7 * place
    if data[at + place] < 128:
      return value, at + place + 1
  raise ValueError('a number is too long')


def _checksum(data):
  """CRC-32C, turned and moved as TensorFlow stores it."""
  crc = 0xffffffff
  for byte in data:
    crc = _CRC_OF_BYTE[(crc ^ byte) & 0xff] ^ crc >> 8
  crc ^= 0xffffffff
  return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def _crc_of(byte):
  for _ in range(8):
    byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
  return byte


_CRC_OF_BYTE = [_crc_of(byte) for byte in range(256)]


def write_checkpoint(weights, prefix):
  """Writes a checkpoint that the published code restores.

  The `checkpoint` file beside it names it without a directory, so that the
  whole can be moved.

  Args:
    weights: name -> array.
    prefix: path of the checkpoint, in an existing directory.

  Raises:
    RunError: it cannot be written.
  """
  with tf.Graph().as_default():
    variables = [tf.get_variable(name, initializer=tf.constant(weights[name]))
                 for name, _ in SHAPES]
    saver = tf.train.Saver(variables, save_relative_paths=True)
    with tf.Session(config=runtime.session_config()) as session:
      session.run(tf.global_variables_initializer())
      try:
        saver.save(session, prefix, write_meta_graph=False)
      except tf.errors.OpError as error:
        raise RunError('%s cannot be written: %s' % (prefix, error.message))
