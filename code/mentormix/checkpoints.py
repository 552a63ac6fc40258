"""Finds, reads and recovers the checkpoints in a directory.

A checkpoint has one of two forms: TensorFlow's own, or model.ckpt-<step>.npz
with an array for each variable, as code/run_exported.py writes it. Here it is a
path: the prefix of TensorFlow's files, or the path of the .npz file.
"""
import contextlib
import glob
import os
import re
import shutil

import numpy as np

from mentormix import files
from mentormix import runtime
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

BASENAME = 'model.ckpt'
ARRAYS = '.npz'
STATE = 'checkpoint'  # Lists TensorFlow's checkpoints.
DAMAGED = 'damaged.'  # Prefix of the names of unreadable files.
_INDEX = '.index'
_NAME = re.compile(r'model\.ckpt-[0-9]{1,18}$')


class Damaged(RunError):
  """A checkpoint that cannot be read."""


def write(arrays, prefix):
  """Writes arrays as the variables of one of TensorFlow's checkpoints.

  The list beside it names it without a directory, so that the directory can be
  moved.

  Args:
    arrays: name -> array.
    prefix: path of the checkpoint, in an existing directory.

  Raises:
    RunError: it cannot be written.
  """
  with tf.Graph().as_default():
    variables = [tf.get_variable(name, initializer=tf.constant(array))
                 for name, array in arrays.items()]
    saver = tf.train.Saver(variables, save_relative_paths=True)
    with tf.Session(config=runtime.session_config()) as session:
      session.run(tf.global_variables_initializer())
      try:
        saver.save(session, prefix, write_meta_graph=False)
      except tf.errors.OpError as error:
        raise RunError(f'{prefix} cannot be written: {runtime.reason(error)}')


def find(directory):
  """Finds the checkpoints that training has finished writing.

  Of TensorFlow's checkpoints, those count that the list in the directory names.
  If it names none of them, all count that have an index and data.

  Args:
    directory: where training writes. It may be missing, and it may have been
      moved since.

  Returns:
    Step -> path of the checkpoint.
  """
  present, listed = _with(directory, _INDEX), _listed(directory)
  found = {step: prefix for step, prefix in present.items()
           if os.path.basename(prefix) in listed}
  found = found or {step: prefix for step, prefix in present.items()
                    if _matching(prefix, '.data-*-of-*')}
  found.update((step, prefix + ARRAYS)
               for step, prefix in _with(directory, ARRAYS).items())
  return found


def newest(directory):
  """Finds the newest of TensorFlow's checkpoints, whatever its name.

  Args:
    directory: an existing one.

  Returns:
    Prefix of the checkpoint that the list in the directory names, or of the
    only one; None if it is not clear which one is the newest.
  """
  state = _state(directory)
  if state:  # Its paths may be those of another directory.
    name = os.path.basename(state.model_checkpoint_path)
    if os.path.isfile(os.path.join(directory, name + _INDEX)):
      return os.path.join(directory, name)
  paths = _matching(os.path.join(directory, ''), f'*{_INDEX}')
  return paths[0][:-len(_INDEX)] if len(paths) == 1 else None


def last_step(directory):
  """Returns the step of the newest checkpoint, 0 if there is none."""
  return max(find(directory), default=0)


def are_there(directory):
  """Whether a directory holds checkpoints, readable or not, or their list."""
  return (os.path.lexists(os.path.join(directory, STATE))
          or bool(_with(directory, _INDEX) or _with(directory, ARRAYS)))


def exists(path):
  """Whether a checkpoint exists."""
  return os.path.isfile(path if path.endswith(ARRAYS) else path + _INDEX)


def _state(directory):
  """Reads TensorFlow's list, a CheckpointState; None if it is invalid."""
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (ValueError, tf.errors.OpError):
    return None
  return state if state and state.model_checkpoint_path else None


def _listed(directory):
  """Names of the checkpoints in TensorFlow's list, newest first."""
  state = _state(directory)
  if state is None:
    return []
  paths = [state.model_checkpoint_path]
  paths += [path for path in reversed(state.all_model_checkpoint_paths)
            if path not in paths]
  names = [os.path.basename(path) for path in paths]
  # TensorFlow would resume from checkpoints in another directory, and delete
  # them when they are old. So a list that names any does not count.
  return names if paths == [
      os.path.join(directory, name) for name in names] else []


def _matching(prefix, pattern):
  """The paths that start with `prefix` and go on as `pattern`."""
  return glob.glob(glob.escape(prefix) + pattern)


def _with(directory, ending):
  """Step -> prefix, of the checkpoints that have a file with this ending."""
  paths = _matching(os.path.join(directory, BASENAME), f'-*{ending}')
  return _by_step(path[:-len(ending)] for path in paths)


def _by_step(prefixes):
  """Step -> prefix, of those that are called model.ckpt-<step>."""
  return {int(prefix.rpartition('-')[2]): prefix for prefix in prefixes
          if _NAME.match(os.path.basename(prefix))}


# Reading.


def shapes(path):
  """Name -> shape, a list, of all variables; Damaged if it cannot be read."""
  try:
    if path.endswith(ARRAYS):
      with np.load(path, allow_pickle=False) as arrays:
        return {name: list(arrays[name].shape) for name in arrays}
    reader = tf.train.load_checkpoint(path)
    return dict(reader.get_variable_to_shape_map())
  except Exception as error:  # As in `load`.
    raise _damaged(path, error)


def load(path, names):
  """Reads variables of a checkpoint.

  Args:
    path: of the checkpoint.
    names: of the variables.

  Returns:
    Name -> array, of those variables that the checkpoint has.

  Raises:
    Damaged: the checkpoint is damaged or missing.
  """
  try:
    if path.endswith(ARRAYS):
      with np.load(path, allow_pickle=False) as arrays:
        if arrays.zip.testzip():  # NumPy may stop before a checksum.
          raise ValueError('a checksum does not match')
        return {name: np.asarray(arrays[name])
                for name in names if name in arrays}
    reader = tf.train.load_checkpoint(path)
    return {name: np.asarray(reader.get_tensor(name))
            for name in names if reader.has_tensor(name)}
  except Exception as error:  # Damaged bytes raise errors of many classes.
    raise _damaged(path, error)


def _damaged(path, error):
  return Damaged(f'the checkpoint {path} cannot be read: '
                 f'{runtime.reason(error) or type(error).__name__}')


def read(path, shapes, what):
  """Reads the variables of a network from a checkpoint.

  Args:
    path: of the checkpoint.
    shapes: name -> shape, a list, of the variables.
    what: whose variables they are, for the error message.

  Returns:
    Name -> float32 array.

  Raises:
    UserError: the checkpoint lacks a variable, or has it in another shape.
    Damaged: the checkpoint is damaged or missing.
  """
  values = load(path, shapes)
  for name, value in values.items():
    if value.dtype.kind != 'f':
      raise Damaged(f'the checkpoint {path} cannot be read: {name} does not '
                    'hold floating-point numbers')
  for name, shape in sorted(shapes.items()):
    found = list(values[name].shape) if name in values else 'missing'
    if found != shape:
      raise UserError(f'the checkpoint {path} is not of {what}: {name} is '
                      f'{found} there, {shape} here')
  return {name: value.astype(np.float32) for name, value in values.items()}


# Recovery.


def recover(directory):
  """Selects the newest readable checkpoint and makes training resume from it.

  On its own, TensorFlow resumes from the checkpoint that its list names, or
  fails; without the list it silently starts from scratch. Call this before
  training, while no other process writes to the directory.

  Newer checkpoints that cannot be read are renamed with the prefix `DAMAGED`.
  What interrupted writes have left is deleted.

  Args:
    directory: where training writes.

  Returns:
    (step, lines): the step that training resumes from, None for a new run or
    one whose very first save was interrupted; and what was done, for the log.

  Raises:
    UserError: training cannot resume from any of the checkpoints, or they
      cannot be accessed now. Nothing has been changed.
  """
  arrays = _with(directory, ARRAYS)
  if arrays:
    raise UserError(
        f'{arrays[max(arrays)]}{ARRAYS} is from code/run_exported.py, which '
        'can resume from it, but TensorFlow cannot; name another '
        '--train_log_dir')
  listed = _listed(directory)
  present = _by_step(os.path.join(directory, name) for name in listed)
  present.update(_with(directory, _INDEX))  # Of listed ones, it may be missing.
  damaged = {}  # Step -> reason, the newest first.
  for step in sorted(present, reverse=True):
    reason = _damage(present[step])
    if not reason:
      break
    damaged[step] = reason
  else:
    step, last = None, max(damaged, default=0)
    if last:  # Step 0 can be repeated.
      raise UserError(
          f'{directory} holds no readable checkpoint '
          f'({os.path.basename(present[last])}: {damaged[last]}); restore one, '
          'or name another --train_log_dir')
  lines = [_set_aside(present.pop(bad), why) for bad, why in damaged.items()]
  _delete_remains(directory)  # First, since the disk may be full.
  return step, lines + _update_list(directory, listed, present)


def _damage(prefix):
  """Reads every value; returns why training cannot resume from it, or None."""
  try:
    reader = tf.train.load_checkpoint(prefix)
    for name in sorted(reader.get_variable_to_shape_map()):
      value = np.asarray(reader.get_tensor(name))
      if value.dtype.kind == 'f' and not np.isfinite(value).all():
        return f'{name} is not finite'
  except (tf.errors.OpError, ValueError, LookupError, RuntimeError) as error:
    reason = runtime.reason(error)
    if files.is_about_disk(reason):  # The checkpoint may be undamaged.
      raise UserError(f'{prefix} cannot be read now ({reason}); fix that and '
                      'try again, nothing was changed')
    return reason
  return None


def _set_aside(prefix, reason):
  """Renames the files of a damaged checkpoint; returns a line for the log."""
  directory, name = os.path.split(prefix)
  for path in _matching(prefix, '.*'):
    os.replace(path, os.path.join(directory, DAMAGED + os.path.basename(path)))
  return f'{prefix} cannot be read ({reason}); it is now {DAMAGED}{name}'


def _delete_remains(directory):
  """Deletes what interrupted writes of TensorFlow have left."""
  prefix = os.path.join(directory, BASENAME)
  remains = (_matching(prefix, '-*_temp_*') + _matching(prefix, '-*.tempstate*')
             + _matching(os.path.join(directory, STATE), '.tmp*'))
  remains += [path for path in _matching(prefix, '-*.data-*-of-*')
              if not exists(path.rpartition('.data-')[0])]
  for path in remains:
    if os.path.isdir(path):
      shutil.rmtree(path)
    elif os.path.lexists(path):  # Two patterns may fit.
      os.remove(path)


def _update_list(directory, listed, present):
  """Makes TensorFlow's list name the newest checkpoint of `present`.

  Without any it removes the list. Returns lines for the log.
  """
  path = os.path.join(directory, STATE)
  names = [os.path.basename(prefix) for _, prefix in sorted(present.items())
           if _matching(prefix, '.data-*-of-*')]
  if not names:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
    return []
  is_valid = bool(set(names) & set(listed))
  if is_valid:  # TensorFlow may delete what is listed: add only one name.
    names = [name for name in names if name in listed or name == names[-1]]
  if listed != names[::-1]:
    with files.replaced(path) as f:
      f.write(f'model_checkpoint_path: "{names[-1]}"\n')
      f.writelines(f'all_model_checkpoint_paths: "{name}"\n' for name in names)
  return [] if is_valid else [
      f'{path} was missing or damaged; it has been rewritten']
