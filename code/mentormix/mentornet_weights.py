"""The weights of a MentorNet: their names, their shapes, and checkpoints.

Weights are a dict, name -> float32 array, with the names of `SHAPES`, by which
published checkpoints and the published code know them.
"""
import numpy as np

from mentormix import bundles
from mentormix import runtime
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

_MAX_ELEMENTS = 1000000  # Of a variable.

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

  Raises:
    UserError: it is damaged, or holds no MentorNet; see `check`.
  """
  try:
    index = bundles.read_index(prefix)
    arrays = {name: _read_array(index[name]) for name, _ in SHAPES
              if name in index}
  except (OSError, ValueError):
    raise UserError('%s is a damaged checkpoint: its .index or its .data file '
                    'is cut short, changed or missing; copy both again'
                    % prefix)
  return check(arrays, prefix)


def _read_array(entry):
  if entry.dtype is None or np.prod(entry.shape) > _MAX_ELEMENTS:
    raise ValueError('it holds something else, or more')
  return bundles.read_array(entry)


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
