"""Finds, reads and recovers the checkpoints in a directory.

All of the library asks this module which checkpoints there are. A checkpoint
has one of two forms: TensorFlow's own, or model.ckpt-<step>.npz with an array
for each variable, as code/run_exported.py writes it. Here it is a path: the
prefix of TensorFlow's files, or the path of the .npz file.
"""
import contextlib
import errno
import glob
import os
import re
import shutil

import numpy as np

from mentormix import files
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix import runtime
from mentormix.runtime import tf

BASENAME = 'model.ckpt'
ARRAYS = '.npz'
STATE = 'checkpoint'  # Lists TensorFlow's checkpoints.
DAMAGED = 'damaged.'  # Prefix of the names of unreadable files.
_INDEX = '.index'
# What interrupted writes of TensorFlow leave behind, besides data files without
# an index.
_REMAINS = re.compile(r'model\.ckpt-\d+(_temp_.*|\..*\.tempstate\d*)$|'
                      r'checkpoint\.tmp[0-9a-f]*$')
_DATA = re.compile(r'(model\.ckpt-\d+)\.data-\d+-of-\d+$')
# Errors that say nothing about a file, besides those of the disk.
_SYSTEM_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Damaged(RunError):
  """A checkpoint that cannot be read."""


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
  present, listed = _with_index(directory), _listed(directory) or []
  found = {step: prefix for step, prefix in present.items()
           if os.path.basename(prefix) in listed}
  found = found or {step: prefix for step, prefix in present.items()
                    if _has_data(prefix)}
  found.update(_numbered(directory, ARRAYS))
  return found


def newest(directory):
  """Finds the newest of TensorFlow's checkpoints, whatever its name.

  Args:
    directory: an existing directory. It may have been moved since the
      checkpoint was written.

  Returns:
    Prefix of the checkpoint that the list in the directory names; without such
    a list, of the only checkpoint. None if there is no checkpoint, or if it is
    not clear which one is the newest.
  """
  paths = glob.glob(os.path.join(glob.escape(directory), f'*{_INDEX}'))
  names = [os.path.basename(path)[:-len(_INDEX)] for path in paths]
  state = _state(directory)  # Its paths may be those of another directory.
  name = os.path.basename(state.model_checkpoint_path) if state else None
  if name not in names:
    name = names[0] if len(names) == 1 else None
  return name and os.path.join(directory, name)


def last_step(directory):
  """Returns the step of the newest checkpoint, 0 if there is none."""
  return max(find(directory), default=0)


def are_there(directory):
  """Whether a directory holds checkpoints, readable or not, or their list."""
  return (os.path.lexists(os.path.join(directory, STATE))
          or bool(_with_index(directory) or _numbered(directory, ARRAYS)))


def exists(path):
  """Whether a checkpoint exists."""
  return (os.path.isfile(path) if path.endswith(ARRAYS)
          else tf.train.checkpoint_exists(path))


def _state(directory):
  """Reads TensorFlow's list, a CheckpointState; None if it is invalid."""
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (ValueError, tf.errors.OpError):
    return None
  return state if state and state.model_checkpoint_path else None


def _listed(directory):
  """Names of the checkpoints in TensorFlow's list, newest first, or None."""
  state = _state(directory)
  if state is None:
    return None
  newest_name = os.path.basename(state.model_checkpoint_path)
  names = map(os.path.basename, reversed(state.all_model_checkpoint_paths))
  names = [newest_name] + [name for name in names if name != newest_name]
  # TensorFlow would resume from checkpoints in another directory, and delete
  # them when they are old. So a list that names any does not count.
  if {os.path.join(directory, name) for name in names} != {
      state.model_checkpoint_path} | set(state.all_model_checkpoint_paths):
    return None
  return names


def _name(ending):
  """Pattern of the names of a checkpoint's files; its group is the step."""
  return re.compile(
      f'{re.escape(BASENAME)}-([0-9]{{1,18}}){re.escape(ending)}$')


def _numbered(directory, ending):
  """Step -> path of the checkpoint's file with this ending."""
  pattern, found = _name(ending), {}
  for path in glob.glob(os.path.join(glob.escape(directory), '*')):
    match = pattern.match(os.path.basename(path))
    if match:
      found[int(match.group(1))] = path
  return found


def _with_index(directory):
  """Step -> prefix of TensorFlow's checkpoints, complete or not."""
  return {step: path[:-len(_INDEX)]
          for step, path in _numbered(directory, _INDEX).items()}


def _has_data(prefix):
  return bool(glob.glob(f'{glob.escape(prefix)}.data-*-of-*'))


# Reading.


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
    raise Damaged(f'the checkpoint {path} cannot be read: '
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
  arrays = _numbered(directory, ARRAYS)
  if arrays:
    raise UserError(
        f'{directory} holds {os.path.basename(arrays[max(arrays)])}, from '
        'which code/run_exported.py resumes, but TensorFlow cannot; name '
        'another --train_log_dir')
  listed = _listed(directory)
  present = _with_index(directory)
  for name in listed or []:  # The index may be missing.
    match = _name('').match(name)
    if match:
      present.setdefault(int(match.group(1)), os.path.join(directory, name))
  step, damaged = _newest_readable(present)
  if step is None and max(damaged, default=0):  # Step 0 can be repeated.
    last = max(damaged)
    raise UserError(
        f'{directory} holds no readable checkpoint '
        f'({os.path.basename(present[last])}: {damaged[last]}); restore one, '
        'or name another --train_log_dir')
  lines = [_set_aside(present.pop(bad), damaged[bad])
           for bad in sorted(damaged, reverse=True)]
  _delete_remains(directory)  # First, since the disk may be full.
  lines += _update_list(directory, listed, present, step)
  return step, lines


def _newest_readable(present):
  """Finds the newest checkpoint that can be read.

  Args:
    present: step -> prefix.

  Returns:
    (step, damaged): the step of that checkpoint, or None; and step -> reason,
    for the newer ones, which cannot be read.
  """
  damaged = {}
  for step in sorted(present, reverse=True):
    reason = _damage(present[step])
    if not reason:
      return step, damaged
    damaged[step] = reason
  return None, damaged


def _damage(prefix):
  """Reads every value; returns why training cannot resume from it, or None.

  Raises:
    UserError: the files cannot be accessed now, but may be undamaged.
  """
  try:
    reader = tf.train.load_checkpoint(prefix)
    for name in sorted(reader.get_variable_to_shape_map()):
      value = np.asarray(reader.get_tensor(name))
      if value.dtype.kind == 'f' and not np.isfinite(value).all():
        return f'{name} is not finite'
  except (tf.errors.OpError, ValueError, LookupError, RuntimeError) as error:
    reason = runtime.reason(error)
    # TensorFlow 2.x has no class of its own for most of these errors.
    if isinstance(error, tf.errors.ResourceExhaustedError) or (
        files.is_about_disk(reason)
        or any(os.strerror(number) in reason for number in _SYSTEM_ERRORS)):
      raise UserError(f'{prefix} cannot be read now ({reason}); fix that and '
                      'try again, nothing was changed')
    return reason
  return None


def _set_aside(prefix, reason):
  """Renames the files of a damaged checkpoint; returns a line for the log."""
  directory, name = os.path.split(prefix)
  paths = glob.glob(f'{glob.escape(prefix)}.*')
  for path in paths:
    os.replace(path, os.path.join(directory, DAMAGED + os.path.basename(path)))
  if not paths:
    return f'{prefix} is gone'
  return f'{prefix} cannot be read ({reason}); it is now {DAMAGED}{name}'


def _delete_remains(directory):
  """Deletes what interrupted writes of TensorFlow have left."""
  for path in glob.glob(os.path.join(glob.escape(directory), '*')):
    name = os.path.basename(path)
    data = _DATA.match(name)
    if _REMAINS.match(name) or data and not os.path.isfile(
        os.path.join(directory, data.group(1) + _INDEX)):
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)


def _update_list(directory, listed, present, step):
  """Makes TensorFlow's list name the checkpoint of `step` as the newest.

  Without a step it removes the list. Returns lines for the log.
  """
  path = os.path.join(directory, STATE)
  if step is None:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
    return []
  names = [os.path.basename(prefix) for _, prefix in sorted(present.items())
           if _has_data(prefix)]
  is_valid = bool(set(names) & set(listed or []))
  if is_valid:  # TensorFlow may delete what is listed: add only one name.
    names = [name for name in names
             if name in listed or name == os.path.basename(present[step])]
  if not listed or listed[0] != names[-1] or set(listed) != set(names):
    with files.replaced(path) as f:
      f.write(f'model_checkpoint_path: "{names[-1]}"\n')
      f.writelines(f'all_model_checkpoint_paths: "{name}"\n' for name in names)
  return [] if is_valid else [
      f'{path} was missing or damaged; it has been rewritten']
