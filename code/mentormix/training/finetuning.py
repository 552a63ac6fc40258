"""Starts a run with the weights of a checkpoint, by the conventions of slim.

    source = finetuning.find(config)  # early: is it a checkpoint?
    fed = finetuning.initial(config, source, data)  # the graph exists: does it
    scaffold = tf.train.Scaffold(init_feed_dict=fed)  # fit?

The loaded values take the place of initial ones, so a variable never has
another. Averages start with the weight that they average, momentum with 0. The
flags are those of slim's train_image_classifier.py, with the same meaning,
except that the head of the student is excluded by default.
"""
import os
from typing import Dict, List, NamedTuple

import numpy as np

from mentormix import checkpoints
from mentormix import file_kinds
from mentormix import students
from mentormix.messages import log, UserError
from mentormix.runtime import tf
from mentormix.training import methods

_MOST_NAMED = 5  # Variables in a message.
_NUM_IMAGES = 2000  # From which a student prepares initial values.
_LEAST_FITTING = 0.1  # Below this share, the checkpoint is of another net.
_LONG = 1e6  # As if a debiased average had moved so many times.
_ENDING = r'.index', r'.meta', r'.data-00000-of-00001'


class Source(NamedTuple):
  """A checkpoint to start with."""
  path: str
  shapes: Dict[str, List[int]]  # Of its variables, by name.


def find(config):
  """Finds the checkpoint that --checkpoint_path names.

  Args:
    config: a `config.TrainConfig`.

  Returns:
    A `Source`, or None if the flag is not given.

  Raises:
    UserError: there is no checkpoint that can be read.
  """
  path = config.checkpoint_path
  if not path:
    return None
  flag = f'--checkpoint_path={path}'
  if os.path.isdir(path):
    path = _newest(path)
    if not path:
      raise UserError(f'{flag} is a directory, and it is not clear which '
                      'checkpoint in it is the newest; name the checkpoint')
  for ending in _ENDING:
    if path.endswith(ending):
      path = path[:-len(ending)]
  if not (os.path.isfile(path) or checkpoints.exists(path)):
    raise UserError(f'{flag} does not exist; give the prefix of a checkpoint, '
                    'a V1 file or a directory')
  try:
    return Source(path, checkpoints.shapes(path))
  except checkpoints.Damaged as error:
    raise UserError(f'{flag}: {error}{file_kinds.explain(path)}')


def _newest(directory):
  """Path of the newest checkpoint, of any kind; None if that is not clear."""
  found = checkpoints.find(directory)
  if found:
    return found[max(found)]
  single = [name for name in os.listdir(directory) if name.endswith('.ckpt')]
  return (checkpoints.newest(directory) or tf.train.latest_checkpoint(directory)
          or (os.path.join(directory, single[0]) if len(single) == 1 else None))


def excluded_scopes(config):
  """The beginnings of the names of variables that are not loaded, a tuple.

  Without --checkpoint_exclude_scopes, they are those of the student's head.
  """
  return (_scopes(config.checkpoint_exclude_scopes)
          or students.get(config.studentnet).excluded_scopes)


def _scopes(text):
  """The parts of a list with commas, a tuple."""
  return tuple(part.strip() for part in text.split(',') if part.strip())


def read(config, source):
  """Reads what the student in the default graph takes from a checkpoint.

  Args:
    config: a `config.TrainConfig`.
    source: a `Source`.

  Returns:
    Name -> float32 array, of weights and moving statistics.

  Raises:
    UserError: they do not fit together. The line names the variables, their
      shapes and a flag that helps.
  """
  flag = f'--checkpoint_path={config.checkpoint_path}'
  excluded = excluded_scopes(config)
  names = {v.op.name: v.shape.as_list() for v in _variables()}
  wanted = {name: shape for name, shape in names.items()
            if not name.startswith(excluded or ('//',))}
  fitting = {name: shape for name, shape in wanted.items()
             if source.shapes.get(name) == shape}
  if len(fitting) <= _LEAST_FITTING * len(wanted):
    raise UserError(
        f'{flag} is of another net than --studentnet={config.studentnet}: of '
        f'{len(wanted)} variables, {len(fitting)} fit; {_example(wanted)} '
        f'here, {_example(source.shapes)} there; give its --studentnet')
  _check_rest(config, source, wanted)
  try:
    values = checkpoints.read(source.path, fitting, config.studentnet)
  except checkpoints.Damaged as error:
    raise UserError(f'{flag}: {error}')
  for name, value in sorted(values.items()):
    if not np.isfinite(value).all():
      raise UserError(f'{flag}: {name} is not finite')
  left = sorted(set(names) - set(values))
  log(f'starting with {len(values)} variables of {source.path}; initial '
      f'values: {_some(left) if left else "none"}')
  return values


def _variables():
  """Weights and moving statistics of the student."""
  found = {v.op.name: v for v in tf.model_variables()
           + tf.trainable_variables()}
  return [found[name] for name in sorted(found)
          if not name.startswith(methods.STATE)]


def _example(shapes):
  """The first of some variables, in words."""
  name = min(shapes, default='nothing')
  return f'{name} {shapes.get(name, "")}'.strip()


def _some(names):
  """The first names of a list, and how many more there are."""
  more = len(names) - _MOST_NAMED
  return ', '.join(names[:_MOST_NAMED]) + (f' and {more} more' if more > 0
                                           else '')


def _check_rest(config, source, wanted):
  """Raises UserError if the checkpoint lacks `wanted`, name -> shape."""
  missing = [name for name in sorted(wanted) if name not in source.shapes]
  other = [name for name in sorted(wanted) if name in source.shapes
           and source.shapes[name] != wanted[name]]
  if config.ignore_missing_vars:
    missing = []
  if not missing and not other:
    return
  said, flags = [], []
  if other:
    said.append(_some([f'{name} is {source.shapes[name]} there, {wanted[name]} '
                       'here' for name in other]))
    scopes = sorted({name.rpartition('/')[0] or name for name in other})
    flags.append('--checkpoint_exclude_scopes='
                 + ','.join(excluded_scopes(config) + tuple(scopes)))
  if missing:
    said.append('missing there: '
                + _some([f'{name} {wanted[name]}' for name in missing]))
    flags.append('--ignore_missing_vars')
  raise UserError(
      f'--checkpoint_path={config.checkpoint_path} does not fit '
      f'--studentnet={config.studentnet} with this number of classes and image '
      f'size: {"; ".join(said)}; to start those with initial values, add '
      f'{" ".join(flags)}')


def initial(config, source, data):
  """What a new run starts with, where it is not the initial values.

  The student is in the default graph. A checkpoint comes before what the
  student takes from the training images.

  Args:
    config: a `config.TrainConfig`.
    source: a `Source`, or None.
    data: a `splits.Split`, the training set.

  Returns:
    As `feed`; None for nothing.

  Raises:
    UserError: as `read`.
  """
  prepared = students.get(config.studentnet).prepared
  values = prepared(data.first_images(_NUM_IMAGES)) if prepared else {}
  if source:
    values.update(read(config, source))
  return feed(values) or None


def feed(values):
  """What to feed when variables are initialized, for their values to be these.

  Args:
    values: name -> array, from `read`.

  Returns:
    Tensor -> array. The averages of the weights get the same arrays. The two
    helpers of a debiased mean (`students.resnet`) are as after a long time, so
    that it moves on from the loaded mean.
  """
  fed = {}
  for variable in tf.global_variables():
    plain, _, last = variable.op.name.rpartition('/')
    if variable.op.name in values:
      value = values[variable.op.name]
    elif last == 'ExponentialMovingAverage':
      value = values.get(plain)
    elif last in ('biased', 'local_step'):
      value = next((values[name] for name in values
                    if plain == name or plain.endswith('/' + name)), None)
      if last == 'local_step' and value is not None:
        value = np.float32(_LONG)
    else:
      value = None
    if value is not None:
      fed[variable.initializer.inputs[1]] = value
  return fed


def train_only(scopes):
  """Leaves only the weights in --trainable_scopes for training.

  Args:
    scopes: beginnings of their names, as 'a,b'; '' leaves all.

  Raises:
    UserError: no weight is in one of the scopes.
  """
  weights = tf.get_collection_ref(tf.GraphKeys.TRAINABLE_VARIABLES)
  for scope in _scopes(scopes):
    if not any(w.op.name.startswith(scope) for w in weights):
      known = sorted({w.op.name.rpartition('/')[0] for w in weights})
      raise UserError(f'--trainable_scopes={scopes}: no weight is called '
                      f'{scope}...; there are {_some(known)}')
  if scopes:
    weights[:] = [w for w in weights if w.op.name.startswith(_scopes(scopes))]
