"""Which checkpoints a directory holds: what training and evaluation agree on.

There are two forms: TensorFlow's own, and what code/run_exported.py writes,
model.ckpt-<step>.npz with an array for each variable. Here a checkpoint is a
path: a prefix, or a file that ends in .npz.
"""
import glob
import os
import zipfile
import zlib

import numpy as np

from mentormix import runtime
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

BASENAME = 'model.ckpt'
ARRAYS = '.npz'


def find(directory):
  """Step -> path of every checkpoint: there, and listed if it is TensorFlow's.

  Args:
    directory: where training writes; it may be missing, and may have been moved
      since.

  Raises:
    UserError: the file `checkpoint` is damaged.
  """
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (ValueError, tf.errors.OpError):
    raise UserError('%s is damaged; restore it, or name another directory'
                    % os.path.join(directory, 'checkpoint'))
  found = {}
  for prefix in state.all_model_checkpoint_paths if state else []:
    prefix = os.path.join(directory, os.path.basename(prefix))
    step = prefix.rpartition('-')[2]
    if step.isdigit() and os.path.isfile(prefix + '.index'):
      found[int(step)] = prefix
  for path in _arrays(directory):
    step = path[:-len(ARRAYS)].rpartition('-')[2]
    if step.isdigit():
      found[int(step)] = path
  return found


def _arrays(directory):
  return glob.glob(
      os.path.join(glob.escape(directory), BASENAME + '-*' + ARRAYS))


def exists(path):
  """Whether a checkpoint is there."""
  return (os.path.isfile(path) if path.endswith(ARRAYS)
          else tf.train.checkpoint_exists(path))


def read(path, shapes, what):
  """The variables of a checkpoint.

  Args:
    path: of the checkpoint.
    shapes: name -> shape, a list, of the variables that are wanted.
    what: they are of, for a message.

  Returns:
    Name -> float32 array.

  Raises:
    UserError: it lacks a variable, or has it in another shape.
    RunError: it is damaged, or gone.
  """
  def check(there):
    for name, shape in sorted(shapes.items()):
      if there.get(name) != shape:
        raise UserError('the checkpoint %s is not of %s: %s is %s there, %s '
                        'here' % (path, what, name, there.get(name, 'missing'),
                                  shape))

  try:
    if path.endswith(ARRAYS):
      with np.load(path, allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in shapes if name in arrays}
      check({name: list(value.shape) for name, value in values.items()})
      return {name: value.astype(np.float32) for name, value in values.items()}
    reader = tf.train.load_checkpoint(path)
    check(reader.get_variable_to_shape_map())
    return {name: reader.get_tensor(name) for name in shapes}
  except (tf.errors.OpError, ValueError, OSError, EOFError, LookupError,
          RuntimeError, zipfile.BadZipFile, zlib.error) as error:
    raise RunError('the checkpoint %s cannot be evaluated: %s'
                   % (path, runtime.reason(error)))


def last_step(directory):
  """The step that training in `directory` goes on from, 0 for a new run.

  Raises:
    UserError: there are checkpoints, but not the one that TensorFlow would go
      on from: it would start anew, without a word.
  """
  arrays = _arrays(directory)
  if arrays:
    raise UserError('%s holds %s: code/run_exported.py goes on from there, '
                    'TensorFlow does not; name another --train_log_dir'
                    % (directory, os.path.basename(min(arrays))))
  there = glob.glob(os.path.join(glob.escape(directory), BASENAME + '-*.index'))
  if not there:
    return 0
  found = find(directory)
  latest = tf.train.latest_checkpoint(directory)
  if not latest or os.path.basename(latest) not in map(
      os.path.basename, found.values()):
    raise UserError(
        '%s holds checkpoints, but its file `checkpoint` is missing or does '
        'not point to a complete one (%s); restore it, or name another '
        '--train_log_dir' % (directory, ', '.join(sorted(
            os.path.basename(name)[:-len('.index')] for name in there))))
  return max(found)
