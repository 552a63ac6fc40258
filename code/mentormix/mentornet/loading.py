"""Loads a MentorNet, a small frozen network that weights examples by loss.

    network = loading.load('mentornet_models/mentornet_pd')   # features -> v
    v = mentor.Mentor(network, epoch_percent, ...)(loss)      # [B], in [0, 1]

A network has no variables: it is a GraphDef of constants, or a checkpoint
turned into constants. So it can neither be trained nor be saved in a
checkpoint. A plain threshold (`threshold`), or the formula that a network
learns (`v_star:...`), can take its place. B is the batch size.
"""
import glob
import hashlib
import os

import numpy as np

from mentormix import checkpoints
from mentormix import runtime
from mentormix.mentornet import curriculum
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import mentor
from mentormix.mentornet import network as network_lib
from mentormix.mentornet import weights as weights_lib
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

THRESHOLD = 'threshold'  # Given in place of a directory.
V_STAR = 'v_star:'  # Given before the name or the file of a curriculum.


def load(path, loss_p_percentile=None):
  """Loads a network, or what takes its place.

  Args:
    path: the value of --trained_mentornet_dir: a directory with mentornet.pb; a
      checkpoint prefix with the published variable names, or a directory with
      such a checkpoint; `threshold`; or `v_star:` and a curriculum, as for
      `curriculum.get`.
    loss_p_percentile: for `threshold`, the share of examples with weight 1.

  Returns:
    A function: features [B, 4] -> v [B], both float32.

  Raises:
    UserError: there is no MentorNet at `path`; the line says what is missing.
  """
  if path == THRESHOLD:
    return lambda features: mentor.threshold(features[:, 0], loss_p_percentile)
  if path.startswith(V_STAR):
    return _formula(path)
  frozen = _frozen(path)
  if frozen:
    graph_def = frozen_graph.read_graph(frozen)
    return lambda features: frozen_graph.import_graph(graph_def, features)
  return network_lib.from_weights(weights_of(path))


def md5(path):
  """MD5 checksum of the files that `load` reads, which may be none.

  Args:
    path: as for `load`, which must accept it.
  """
  digest = hashlib.md5()
  for name in _files(path):
    with open(name, 'rb') as f:
      digest.update(f.read())
  return digest.hexdigest()


def _frozen(path):
  """Path of the frozen graph in a directory, or None."""
  frozen = os.path.join(path, frozen_graph.FROZEN_GRAPH)
  return frozen if os.path.isfile(frozen) else None


def _files(path):
  """Paths of the files that `load` reads."""
  if path == THRESHOLD:
    return []
  if path.startswith(V_STAR):
    return [path[len(V_STAR):]] if path.endswith('.py') else []
  frozen = _frozen(path)
  if frozen:
    return [frozen]
  prefix = _find_checkpoint(path)
  return [f'{prefix}.index'] + sorted(
      glob.glob(f'{glob.escape(prefix)}.data-*'))


def weights_of(path):
  """Reads the weights of a network.

  Args:
    path: as for `load`.

  Returns:
    Name -> float32 array, with the names of `SHAPES`.

  Raises:
    UserError: as for `load`; or `path` is not a network, or the network does
      not name its weights.
  """
  if path == THRESHOLD or path.startswith(V_STAR):
    raise UserError(
        f'--trained_mentornet_dir={path} is not a network, so it has no '
        'weights')
  frozen = _frozen(path)
  if not frozen:
    return weights_lib.read_checkpoint(_find_checkpoint(path))
  graph_def = frozen_graph.read_graph(frozen)
  arrays = {node.name: tf.make_ndarray(node.attr['value'].tensor)
            for node in graph_def.node if node.op == 'Const'}
  if weights_lib.SHAPES[0][0] not in arrays:
    raise UserError(
        f'{frozen} does not name its weights; make it again with '
        'code/train_mentornet.py')
  return weights_lib.check(arrays, frozen)


def _formula(path):
  """Makes a function like a network's from the v* that `path` names."""
  try:
    v_star = curriculum.get(path[len(V_STAR):]).v_star
  except UserError as error:
    raise UserError(f'--trained_mentornet_dir={path}: {error}')

  def evaluate(features):
    if np.isnan(features).any():  # As a network would; training reports it.
      return np.full(len(features), np.nan, np.float32)
    return v_star(*features.astype(np.float64).T).astype(np.float32)

  def weigh(features):
    v = tf.py_func(evaluate, [features], tf.float32)
    v.set_shape(features.shape[:1])
    return v
  return weigh


def formula_error(error):
  """Returns the message of a formula that failed in a session, or None.

  Args:
    error: the tf.errors.UnknownError in which TensorFlow wraps the message.
  """
  kind, _, said = runtime.reason(error).partition(': ')
  return said if kind == UserError.__name__ else None


def _find_checkpoint(path):
  """Finds the checkpoint prefix that `path` is, or that is in `path`."""
  if os.path.isfile(f'{path}.index'):
    return path
  if not os.path.isdir(path):
    raise UserError(
        f'--trained_mentornet_dir={path} does not exist, or is not a '
        'directory; name one such as mentornet_models/mentornet_pd, a '
        f'checkpoint prefix, {THRESHOLD}, or {V_STAR} and a curriculum')
  prefix = checkpoints.newest(path)
  if not prefix:
    raise UserError(
        f'--trained_mentornet_dir={path} holds neither '
        f'{frozen_graph.FROZEN_GRAPH} nor one checkpoint; name a checkpoint '
        'prefix')
  return prefix


def apply_network(network, features):
  """Weights v [N] float32 that a network gives to features [N, 4].

  Args:
    network: features -> v, as from `load`.
    features: array, [N, 4] or what the network takes.

  Raises:
    RunError: a formula that takes the place of a network failed.
  """
  with tf.Graph().as_default():
    v = network(tf.constant(features, tf.float32))
    with tf.Session(config=one_core()) as session:
      try:
        return session.run(v)
      except tf.errors.UnknownError as error:
        raise RunError(formula_error(error) or runtime.reason(error))


def one_core():
  """A session config without threads, for networks as small as these."""
  config = tf.ConfigProto(
      intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
  config.device_count['GPU'] = 0
  return config
