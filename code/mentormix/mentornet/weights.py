"""Names and shapes of a MentorNet's weights, and their checkpoints.

Weights are a dict, name -> float32 array, with the names of `SHAPES`, which are
those of the published checkpoints and the published code.
"""
import numpy as np

from mentormix import checkpoints
from mentormix.messages import UserError


def lstm_name(direction, kind):
  """Name of a variable of the LSTM: 'fw' or 'bw', 'kernel' or 'bias'."""
  return f'mentornet/bidirectional_rnn/{direction}/basic_lstm_cell/{kind}'


_LABEL, _EPOCH = 'mentornet/label_embedding', 'mentornet/epoch_embedding'
_KERNEL, _DENSE = lstm_name('fw', 'kernel'), 'mentornet/Variable'


def shapes(label, epoch, lstm, hidden):
  """Lists the variables of a network of these sizes, in the published order.

  Args:
    label: (labels, width) of the label embedding.
    epoch: (epoch percentages, width) of the epoch embedding.
    lstm: size of the LSTM's state.
    hidden: size of the dense layer.

  Returns:
    Pairs (name, shape).
  """
  kernel, bias = (2 + lstm, 4 * lstm), (4 * lstm,)  # It has two inputs.
  return (
      (_LABEL, label),
      (_EPOCH, epoch),
      (_KERNEL, kernel),
      (lstm_name('fw', 'bias'), bias),
      (lstm_name('bw', 'kernel'), kernel),
      (lstm_name('bw', 'bias'), bias),
      (_DENSE, (label[1] + epoch[1] + 2 * lstm, hidden)),
      ('mentornet/Variable_1', (hidden,)),
      ('mentornet/Variable_2', (hidden, 1)),
      ('mentornet/Variable_3', (1,)),
  )


SHAPES = shapes(label=(2, 2), epoch=(100, 5), lstm=1, hidden=20)  # Published.


def check(arrays, source):
  """Selects the weights of a MentorNet, of any size, among arrays.

  Args:
    arrays: name -> array. Names that are not in `SHAPES` are ignored.
    source: where they come from, for the error message.

  Returns:
    Name -> float32 array, in the order of `SHAPES`.

  Raises:
    UserError: weights are missing or invalid; the line names each of them.
  """
  missing = [name for name, _ in SHAPES if name not in arrays]
  if missing:
    raise UserError(f'{source} is not a MentorNet: it does not hold '
                    f'{", ".join(missing)}')

  def size(name, axis):
    return max(1, (np.shape(arrays[name]) or (1,))[axis])

  # The shapes of these four variables determine all others.
  expected = shapes(
      label=(size(_LABEL, 0), size(_LABEL, -1)),
      epoch=(size(_EPOCH, 0), size(_EPOCH, -1)),
      lstm=max(1, size(_KERNEL, -1) // 4), hidden=size(_DENSE, -1))
  weights, faults = {}, []
  for name, shape in expected:
    value = np.asarray(arrays[name])
    if value.shape != shape:
      faults.append(f'{name} has the shape {list(value.shape)} where '
                    f'{list(shape)} would fit')
    elif value.dtype.kind != 'f' or not (
        np.abs(value) <= np.finfo(np.float32).max).all():  # NaN, too.
      faults.append(f'{name} does not hold finite float32 numbers')
    else:
      weights[name] = value.astype(np.float32)
  if faults:
    raise UserError(f'{source} is not a MentorNet: {"; ".join(faults)}')
  return weights


def read_checkpoint(prefix):
  """Reads the weights from a checkpoint with the published names.

  Args:
    prefix: path of the checkpoint.

  Returns:
    Name -> float32 array, in the order of `SHAPES`.

  Raises:
    UserError: the checkpoint is damaged, or not of a MentorNet; see `check`.
  """
  try:
    arrays = checkpoints.load(prefix, [name for name, _ in SHAPES])
  except checkpoints.Damaged:
    raise UserError(
        f'{prefix} is a damaged checkpoint: its .index or its .data file is '
        'truncated, changed or missing; copy both again')
  return check(arrays, prefix)


def write_checkpoint(weights, prefix):
  """Writes a checkpoint that the published code restores.

  Args:
    weights: name -> array.
    prefix: path of the checkpoint, in an existing directory.

  Raises:
    RunError: it cannot be written.
  """
  checkpoints.write({name: weights[name] for name, _ in SHAPES}, prefix)
