"""The files of an exported step, and the checkpoints of a run of it."""
import glob
import json
import os
import re
import zipfile
import zlib

import numpy as np

from mentormix import config as config_lib
from mentormix import files
from mentormix.messages import UserError

CHECKPOINT = 'model.ckpt-%d.npz'
MAX_CHECKPOINTS = 5  # How many of the newest stay on disk.


def read_description(directory):
  """The content of step.json, a dict.

  Raises:
    UserError: the file is missing or damaged.
  """
  path = os.path.join(directory, 'step.json')
  remedy = 'make --exported_dir with code/export_step.py'
  try:
    with open(path) as f:
      description = json.load(f)
    for module in ('step', 'augment'):
      _ = description[module]['sha256']
      for rows in ('arguments', 'results'):
        for row in description[module][rows]:
          _ = row['name'], row['kind'], row['shape'], row['dtype']
    _ = (description['settings'], description['precision'],
         description['flops_per_step'])
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}); {remedy}')
  except (ValueError, KeyError, TypeError):
    raise UserError(f'{path} does not describe an exported step; {remedy}')
  return description


def settings(description, directory):
  """The `config.TrainConfig` that was exported."""
  try:
    config = config_lib.TrainConfig(**description['settings'])
    config_lib.validate(config)
  except (TypeError, UserError) as error:
    path = os.path.join(directory, 'step.json')
    raise UserError(f'{path} does not hold the settings of a run ({error})')
  return config


def _checkpoints(directory):
  """Step -> path of the checkpoints in a directory."""
  found = {}
  for path in glob.glob(os.path.join(glob.escape(directory), '*.npz')):
    match = re.fullmatch(r'model\.ckpt-(\d+)\.npz', os.path.basename(path))
    if match:
      found[int(match.group(1))] = path
  return found


def last_checkpoint(directory):
  """Path of the checkpoint that a run resumes from; None for a new run."""
  if glob.glob(os.path.join(glob.escape(directory), '*.index')):
    raise UserError(f'--output_dir={directory} holds checkpoints of '
                    'TensorFlow; name another directory')
  found = _checkpoints(directory)
  return found[max(found)] if found else None


def _read_arrays(path, remedy):
  """All arrays of an .npz file; UserError with the remedy if it is damaged."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile,
          zlib.error) as error:
    raise UserError(f'{path} cannot be read ({error}); it is damaged or '
                    f'missing: {remedy}')


def read_data(directory):
  """Images uint8 [N, H, W, 3] and labels int64 [N]."""
  arrays = _read_arrays(os.path.join(directory, 'data.npz'),
                        'make --exported_dir again')
  return arrays['images'], arrays['labels']


def read_state(path, description):
  """The state, name -> array.

  Raises:
    UserError: the file is damaged or belongs to another run.
  """
  arrays = _read_arrays(path, 'remove it')
  state = {}
  for row in description['step']['arguments']:
    if row['kind'] != 'state':
      continue
    name, expected = row['name'], f'{row["dtype"]} {row["shape"]}'
    found = 'missing'
    if name in arrays:
      found = f'{arrays[name].dtype.name} {list(arrays[name].shape)}'
    if found != expected:
      raise UserError(f'{path} belongs to another run: {name} is {found} there '
                      f'instead of {expected}; name another --output_dir')
    state[name] = arrays[name]
  return state


def save(state, step, directory):
  """Writes a checkpoint atomically; removes the oldest beyond MAX_CHECKPOINTS.

  Args:
    state: name -> array.
    step: its global_step.
    directory: an existing directory.
  """
  arrays = {name: np.asarray(value) for name, value in state.items()}
  with files.replaced(os.path.join(directory, CHECKPOINT % step), 'wb') as f:
    np.savez(f, **arrays)
  found = _checkpoints(directory)
  for old in sorted(found)[:-MAX_CHECKPOINTS]:
    os.remove(found[old])
