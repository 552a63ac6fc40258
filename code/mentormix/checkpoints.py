"""Which checkpoints a directory holds: what training and evaluation agree on.

There are two forms: TensorFlow's own, and what code/run_exported.py writes,
model.ckpt-<step>.npz with an array for each variable. Here a checkpoint is a
path: a prefix, or a file that ends in .npz.
"""
import contextlib
import glob
import os
import re
import shutil
import zipfile

import numpy as np

from mentormix import arrays
from mentormix import bundles
from mentormix import files
from mentormix import runtime
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

BASENAME = 'model.ckpt'
ARRAYS = '.npz'
STATE = 'checkpoint'  # Lists TensorFlow's, the newest first.
DAMAGED = 'damaged.'  # Before the names of files that cannot be read.
# What TensorFlow's writes leave that are cut short. Elements without an index
# are, too.
_REMAINS = re.compile(r'model\.ckpt-\d+(_temp_.*|\..*\.tempstate\d*)$|'
                      r'checkpoint\.tmp[0-9a-f]*$')
_ELEMENTS = re.compile(r'(model\.ckpt-\d+)\.data-\d+-of-\d+$')


class Damaged(RunError):
  """A checkpoint that cannot be read."""


def find(directory):
  """Step -> path of every checkpoint: there, and listed if it is TensorFlow's.

  Without a list of any that is there, all count that have both of their files.

  Args:
    directory: where training writes; it may be missing, and may have been moved
      since.
  """
  there, listed = _with_index(directory), _listed(directory) or []
  found = {step: prefix for step, prefix in there.items()
           if os.path.basename(prefix) in listed}
  found = found or {step: prefix for step, prefix in there.items()
                    if _is_whole(prefix)}
  found.update(_numbered(directory, ARRAYS))
  return found


def _listed(directory):
  """Names of TensorFlow's checkpoints, newest first; None without a list."""
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (ValueError, tf.errors.OpError):
    return None
  if not state or not state.model_checkpoint_path:
    return None
  newest = os.path.basename(state.model_checkpoint_path)
  names = map(os.path.basename, reversed(state.all_model_checkpoint_paths))
  names = [newest] + [name for name in names if name != newest]
  # TensorFlow would go on from what lies elsewhere, and delete it when it is
  # old.
  if {os.path.join(directory, name) for name in names} != {
      state.model_checkpoint_path} | set(state.all_model_checkpoint_paths):
    return None
  return names


def _name(ending):
  """Pattern of the names of checkpoints; its group is the step."""
  return re.compile(re.escape(BASENAME) + r'-([0-9]{1,18})%s$'
                    % re.escape(ending))


def _numbered(directory, ending):
  """Step -> path of the checkpoint's file with this ending."""
  pattern, found = _name(ending), {}
  for path in glob.glob(os.path.join(glob.escape(directory), '*')):
    match = pattern.match(os.path.basename(path))
    if match:
      found[int(match.group(1))] = path
  return found


def _with_index(directory):
  """Step -> prefix of what may be a checkpoint of TensorFlow."""
  return {step: path[:-len('.index')]
          for step, path in _numbered(directory, '.index').items()}


def _is_whole(prefix):
  return bool(glob.glob(glob.escape(prefix) + '.data-*-of-*'))


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
    Damaged: it cannot be read, or is gone.
  """
  def check(there):
    for name, shape in sorted(shapes.items()):
      if there.get(name) != shape:
        raise UserError('the checkpoint %s is not of %s: %s is %s there, %s '
                        'here' % (path, what, name, there.get(name, 'missing'),
                                  shape))

  try:
    if path.endswith(ARRAYS):
      with zipfile.ZipFile(path) as archive:
        heads = arrays.headers(archive, shapes)
        if any(head.dtype.kind != 'f' for head in heads.values()):
          raise ValueError('it holds something else than numbers')
        check({name: list(head.shape) for name, head in heads.items()})
        return {name: arrays.read(archive, name, head).astype(np.float32)
                for name, head in heads.items()}
    reader = _reader(path)
    check(reader.get_variable_to_shape_map())
    return {name: reader.get_tensor(name).astype(np.float32)
            for name in shapes}
  except UserError:
    raise
  except Exception as error:  # The bytes are a stranger's: anything may fail.
    raise Damaged('the checkpoint %s cannot be read: %s'
                  % (path, runtime.reason(error)))


def _reader(prefix):
  """TensorFlow's reader of a checkpoint; its index is such as not to harm it.

  Raises:
    OSError, ValueError, tf.errors.OpError: the checkpoint is damaged.
  """
  for name, entry in bundles.read_index(prefix).items():
    if entry.dtype is None:
      raise ValueError('%s holds no numbers' % name)
  return tf.train.load_checkpoint(prefix)


def last_step(directory):
  """The step of the newest checkpoint, 0 where there is none."""
  return max(find(directory), default=0)


def are_there(directory):
  """Whether a directory holds checkpoints, sound or not, or a list of them."""
  return (os.path.lexists(os.path.join(directory, STATE))
          or bool(_with_index(directory) or _numbered(directory, ARRAYS)))


def recover(directory):
  """Makes the newest checkpoint that can be read the one that is gone on from.

  TensorFlow alone goes on from the one that its file `checkpoint` names or not
  at all, and without that file it starts anew, without a word. Call it before
  training, and only while no other process writes there.

  Newer ones that cannot be read are renamed, `DAMAGED` before their names; what
  is left of writes that were cut short is deleted.

  Args:
    directory: where training writes.

  Returns:
    (step, lines): the step that training goes on from, None for a new run,
    and for one whose very first save was cut short; and what was done, for the
    log.

  Raises:
    UserError: there are checkpoints, but none that training can go on from, or
      they are out of reach. Nothing is changed then.
  """
  arrays = _numbered(directory, ARRAYS)
  if arrays:
    raise UserError('%s holds %s: code/run_exported.py goes on from there, '
                    'TensorFlow does not; name another --train_log_dir'
                    % (directory, os.path.basename(arrays[max(arrays)])))
  listed = _listed(directory)
  there = _with_index(directory)
  for name in listed or []:  # Its index may be missing.
    match = _name('').match(name)
    if match:
      there.setdefault(int(match.group(1)), os.path.join(directory, name))
  step, damaged = _newest_sound(there)
  if step is None and max(damaged, default=0):  # At 0, nothing was trained yet.
    raise UserError(
        '%s holds no checkpoint that can be read (%s: %s); restore one, or '
        'name another --train_log_dir' % (directory, os.path.basename(
            there[max(damaged)]), damaged[max(damaged)]))

  lines = []
  for bad in sorted(damaged, reverse=True):
    name = os.path.basename(there.pop(bad))
    path = os.path.join(directory, name)
    if _set_aside(path):
      lines.append('%s cannot be read (%s); it is now %s%s'
                   % (path, damaged[bad], DAMAGED, name))
    else:
      lines.append('%s is gone' % path)
  _delete_remains(directory)  # Which makes room.
  whole = [os.path.basename(prefix) for _, prefix in sorted(there.items())
           if _is_whole(prefix)]
  # What somebody keeps there, unlisted, is not ours to delete when it is old.
  is_of_use = bool(set(whole) & set(listed or []))
  if is_of_use:
    whole = [name for name in whole
             if name in listed or name == os.path.basename(there[step])]
  path = os.path.join(directory, STATE)
  if step is None:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  elif listed is None or listed[0] != whole[-1] or set(listed) != set(whole):
    with files.replaced(path) as f:
      f.write('model_checkpoint_path: "%s"\n' % whole[-1])
      f.writelines('all_model_checkpoint_paths: "%s"\n' % n for n in whole)
    if not is_of_use:
      lines.append('%s was missing or damaged; it is written anew' % path)
  return step, lines


def _newest_sound(there):
  """The newest checkpoint that can be read.

  Args:
    there: step -> prefix.

  Returns:
    (step, damaged): its step, None for none; and step -> why, of those that
    are newer and cannot.
  """
  damaged = {}
  for step in sorted(there, reverse=True):
    why = _damage(there[step])
    if not why:
      return step, damaged
    damaged[step] = why
  return None, damaged


def _damage(prefix):
  """Why a checkpoint cannot be gone on from, or None: every value is read.

  Raises:
    UserError: it may be sound, but is out of reach.
  """
  try:
    reader = _reader(prefix)
    for name in sorted(reader.get_variable_to_shape_map()):
      value = reader.get_tensor(name)
      if value.dtype.kind == 'f' and not np.isfinite(value).all():
        return '%s is not finite' % name
  except (tf.errors.OpError, ValueError, OSError, LookupError,
          RuntimeError) as error:
    reason = runtime.reason(error)
    if _is_out_of_reach(error, reason):
      raise UserError('%s cannot be read now (%s); mend that, nothing was '
                      'changed' % (prefix, reason))
    return reason
  return None


def _is_out_of_reach(error, reason):
  """Whether an error says nothing of what is in a file."""
  if isinstance(error, OSError):
    return not isinstance(error, FileNotFoundError)
  # TensorFlow 2.x makes an error without a class of many.
  return (isinstance(error, (tf.errors.ResourceExhaustedError,
                             tf.errors.PermissionDeniedError))
          or files.is_about_disk(reason))


def _set_aside(prefix):
  """Renames the files of a checkpoint; whether there were any."""
  paths = glob.glob(glob.escape(prefix) + '.*')
  for path in paths:
    os.replace(path, os.path.join(os.path.dirname(path),
                                  DAMAGED + os.path.basename(path)))
  return bool(paths)


def _delete_remains(directory):
  """Deletes what TensorFlow's writes that were cut short have left."""
  for path in glob.glob(os.path.join(glob.escape(directory), '*')):
    name = os.path.basename(path)
    elements = _ELEMENTS.match(name)
    if _REMAINS.match(name) or elements and not os.path.isfile(
        os.path.join(directory, elements.group(1) + '.index')):
      if os.path.isdir(path):
        shutil.rmtree(path)
      else:
        os.remove(path)
