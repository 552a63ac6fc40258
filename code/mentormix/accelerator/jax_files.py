"""The files of an exported step, and the checkpoints of a run of it."""
import glob
import os
import re
import zipfile
import zlib

import numpy as np

from mentormix import config as config_lib
from mentormix import files
from mentormix.messages import UserError

MAX_CHECKPOINTS = 5  # How many of the newest stay on disk.


def read_description(directory):
  """Reads step.json.

  Returns:
    (description, config): its content, a dict, and the `config.TrainConfig`
    that was exported.

  Raises:
    UserError: the file is missing or damaged.
  """
  path = os.path.join(directory, 'step.json')
  description = files.read_object(path, 'the description of an exported step')
  try:
    return description, config_lib.TrainConfig(**description['settings'])
  except (KeyError, TypeError):
    raise UserError(f'{path} is missing or damaged; make --exported_dir with '
                    'code/export_step.py')


def last_checkpoint(directory):
  """Path of the checkpoint that a run resumes from; None for a new run."""
  if glob.glob(os.path.join(glob.escape(directory), '*.index')):
    raise UserError(f'--output_dir={directory} holds checkpoints of '
                    'TensorFlow; name another directory')
  return max(_checkpoints(directory), default=(0, None))[1]


def _checkpoints(directory):
  """(step, path) of each checkpoint in a directory."""
  matches = [re.fullmatch(r'model\.ckpt-(\d+)\.npz', name)
             for name in os.listdir(directory)]
  return [(int(match.group(1)), os.path.join(directory, match.group()))
          for match in matches if match]


def read_state(path, description):
  """The state, name -> array.

  Raises:
    UserError: the file is damaged or belongs to another run.
  """
  arrays, state = read_arrays(path), {}
  for row in description['step']['arguments']:
    if row['kind'] == 'state':
      name = row['name']
      state[name] = found = arrays.get(name, np.zeros([0], 'void'))
      if (found.dtype.name, list(found.shape)) != (row['dtype'], row['shape']):
        raise UserError(f'{path} belongs to another run: {name} is not '
                        f'{row["dtype"]} {row["shape"]} there; name another '
                        '--output_dir')
  return state


def read_arrays(path):
  """All arrays of an .npz file; UserError if it is damaged."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile,
          zlib.error) as error:
    raise UserError(f'{path} is damaged or missing ({error}); remove it, or '
                    'make --exported_dir again')


def save(state, step, directory):
  """Writes a checkpoint atomically; removes the oldest beyond MAX_CHECKPOINTS.

  Args:
    state: name -> array.
    step: its global_step.
    directory: an existing directory.
  """
  path = os.path.join(directory, f'model.ckpt-{step}.npz')
  with files.replaced(path, 'wb') as f:
    np.savez(f, **state)
  for _, old in sorted(_checkpoints(directory))[:-MAX_CHECKPOINTS]:
    os.remove(old)
