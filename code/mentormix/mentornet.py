"""The MentorNet, a small frozen network that weights examples by their loss.

    network = mentornet.load('mentornet_models/mentornet_pd')   # features -> v
    mentor = mentornet.Mentor(network, epoch_percent, ...)      # loss -> v
    v = mentor(loss)                                            # [B], in [0, 1]

See section 3 of the MentorNet paper and the published code. A network has no
variables: it is a GraphDef of constants, or a checkpoint turned into constants.
So it can neither be trained nor be saved in a checkpoint. A plain threshold
(`threshold`), or the formula that a network learns (`v_star:...`), can take its
place. B is the batch size.
"""
import glob
import hashlib
import os

import numpy as np

from mentormix import checkpoints
from mentormix import curriculum
from mentormix import files
from mentormix import loss_traces
from mentormix import mentornet_weights
from mentormix import runtime
from mentormix import schedules
from mentormix.command import UserError
from mentormix.mentornet_weights import lstm_name
from mentormix.mentornet_weights import SHAPES
from mentormix.runtime import tf

FROZEN_GRAPH = 'mentornet.pb'
THRESHOLD = 'threshold'  # Given in place of a directory.
V_STAR = 'v_star:'  # Given before the name or the file of a curriculum.
INPUT, OUTPUT = 'features', 'weight'  # Node names in a frozen graph.
NUM_FEATURES = 4  # loss, loss - average, label, epoch percentage.
AVERAGE_DECAY = 0.5
SELECTED = 0.5  # An example counts as selected from this weight on.

# A frozen graph computes; it does not read, write, call or loop.
ALLOWED_OPS = frozenset("""
    Add AddV2 BiasAdd Cast ClipByValue ConcatV2 Const Exp ExpandDims Floor
    GatherV2 Greater GreaterEqual Identity Less LessEqual MatMul Maximum Minimum
    Mul Neg NoOp Pack Placeholder RealDiv Relu Reshape Select SelectV2 Shape
    Sigmoid Slice Split SplitV Squeeze StridedSlice Sub Tanh""".split())
_MAX_BYTES = 16 << 20  # Of a frozen graph.


def network(features, weights):
  """Builds the published architecture, without its final sigmoid.

  Args:
    features: [B, 4] float32: loss, loss minus its moving average, label, epoch
      percentage. Label and epoch are truncated to integers, and the epoch is
      clipped to the rows of its embedding (as published: 0 to 99).
    weights: name -> tensor, with the names of `SHAPES`, of any size.

  Returns:
    Logits [B] float32; the weight is their sigmoid.
  """
  w = lambda name: weights['mentornet/' + name]
  label = tf.gather(w('label_embedding'), tf.cast(features[:, 2], tf.int32))
  last = w('epoch_embedding').shape[0].value - 1
  epoch = tf.gather(w('epoch_embedding'), tf.clip_by_value(
      tf.cast(features[:, 3], tf.int32), 0, last))
  losses = features[:, :2]
  cells = [_lstm_cell_state(losses, weights[lstm_name(direction, 'kernel')],
                            weights[lstm_name(direction, 'bias')])
           for direction in ('fw', 'bw')]
  x = tf.concat([label, epoch] + cells, axis=1)  # Published: [B, 9],
  hidden = tf.tanh(tf.matmul(x, w('Variable')) + w('Variable_1'))  # [B, 20].
  # The published network adds the bias to the weights, before the product.
  return tf.squeeze(tf.matmul(hidden, w('Variable_2') + w('Variable_3')), 1)


def _lstm_cell_state(x, kernel, bias):
  """Cell state after one step of an LSTM from zero state, forget bias 0.

  With a zero state, the recurrent rows of `kernel` and the forget gate have no
  effect.
  """
  gates = tf.matmul(x, kernel[:x.shape[1].value]) + bias
  i, j, _, _ = tf.split(gates, 4, axis=1)
  return tf.sigmoid(i) * tf.tanh(j)


def freeze(weights, directory):
  """Writes a network to `directory`/mentornet.pb, for TensorFlow 1.15 and 2.x.

  The constants have the names of the weights, so that `weights_of` finds them.

  Args:
    weights: name -> NumPy array, with the names of `SHAPES`.
    directory: an existing directory.
  """
  with tf.Graph().as_default() as graph:
    features = tf.placeholder(tf.float32, [None, NUM_FEATURES], name=INPUT)
    logits = network(features, _constants(weights))
    tf.sigmoid(logits, name=OUTPUT)
  # The attributes that 2.x writes and 1.15 does not know have default values.
  graph_def = tf.train.export_meta_graph(
      graph=graph, strip_default_attrs=True).graph_def
  path = os.path.join(directory, FROZEN_GRAPH)
  with files.replaced(path, 'wb') as f:
    f.write(graph_def.SerializeToString(deterministic=True))


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
    return lambda features: threshold(features[:, 0], loss_p_percentile)
  if path.startswith(V_STAR):
    return _formula(path)
  frozen = os.path.join(path, FROZEN_GRAPH)
  if os.path.isfile(frozen):
    graph_def = _read_graph(frozen)
    return lambda features: _import(graph_def, features)
  return from_weights(weights_of(path))


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


def _files(path):
  """Paths of the files that `load` reads."""
  if path == THRESHOLD:
    return []
  if path.startswith(V_STAR):
    return [path[len(V_STAR):]] if path.endswith('.py') else []
  frozen = os.path.join(path, FROZEN_GRAPH)
  if os.path.isfile(frozen):
    return [frozen]
  prefix = _find_checkpoint(path)
  return [f'{prefix}.index'] + sorted(
      glob.glob(f'{glob.escape(prefix)}.data-*'))


def from_weights(weights):
  """Makes a network from its weights.

  Args:
    weights: name -> array, with the names of `SHAPES`.

  Returns:
    A function: features [B, 4] -> v [B], both float32.
  """
  return lambda features: tf.sigmoid(network(features, _constants(weights)))


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
        f'weights; name a checkpoint or a directory with {FROZEN_GRAPH}')
  frozen = os.path.join(path, FROZEN_GRAPH)
  if not os.path.isfile(frozen):
    return mentornet_weights.read_checkpoint(_find_checkpoint(path))
  arrays = {node.name: tf.make_ndarray(node.attr['value'].tensor)
            for node in _read_graph(frozen).node if node.op == 'Const'}
  if SHAPES[0][0] not in arrays:
    raise UserError(
        f'{frozen} does not name its weights: another program or an earlier '
        'version made it; make it again with code/train_mentornet.py')
  return mentornet_weights.check(arrays, frozen)


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


def threshold(loss, p):
  """The simplest MentorNet: 1 where loss < its p-percentile, else 0, [B].

  As published, 100 p is truncated to an integer in float64: 0.57 means 56%.
  """
  return tf.cast(tf.less(loss, percentile(loss, int(100 * p))), tf.float32)


def percentile(x, q):
  """The q-th percentile of `x`, 0 <= q <= 100, by `loss_traces.rank_from_top`.

  Args:
    x: [B], with a static shape.
    q: a number.

  Returns:
    A scalar.
  """
  rank = loss_traces.rank_from_top(x.shape.num_elements(), q / 100.0)
  return tf.nn.top_k(x, k=rank + 1).values[rank]


def features_of(loss, average, epoch_percent):
  """Builds the input of a MentorNet.

  Args:
    loss: [B] float32.
    average: scalar, the moving average that is subtracted from the losses.
    epoch_percent: int32 scalar, percentage of training that is done, 0 to 99.

  Returns:
    [B, 4] float32; the label is always 0 (published code).
  """
  epoch = tf.cast(epoch_percent, tf.float32)
  return tf.stack([loss, loss - average, tf.zeros_like(loss),
                   epoch * tf.ones_like(loss)], axis=1)


class Mentor:
  """Turns the losses of a batch into weights; keeps their moving average.

  Each call site of the algorithm has its own Mentor (published code). A step
  changes one variable, the average. Its update is in tf.GraphKeys.UPDATE_OPS,
  so reading a weight changes nothing.
  """

  def __init__(self, network, epoch_percent, loss_p_percentile,
               burn_in_epoch=0, dropout_rates=None, name='mentor',
               uniform=tf.random.uniform):
    """Creates a Mentor.

    Args:
      network: features [B, 4] -> v [B], from `load`.
      epoch_percent: int32 scalar, percentage of training that is done.
      loss_p_percentile: the percentile of the losses to average, 0 to 1.
      burn_in_epoch: v = 1 while epoch_percent < burn_in_epoch - 1.
      dropout_rates: 100 rates, one for each epoch percentage, or None.
      name: of the variable scope.
      uniform: a callable, shape -> numbers from [0, 1), which decide which
        weights are dropped.
    """
    self._network = network
    self._epoch_percent = epoch_percent
    self._loss_p = loss_p_percentile
    self._burn_in_epoch = burn_in_epoch
    self._dropout_rates = dropout_rates
    self._name = name
    self._uniform = uniform
    self.average = None  # float32 scalar, after the call.

  def __call__(self, loss):
    """Returns weights v [B] for losses [B]."""
    with tf.variable_scope(self._name):
      average = tf.get_variable(
          'loss_average', [], initializer=tf.zeros_initializer(),
          trainable=False)
      latest = percentile(loss, 100 * self._loss_p)
      self.average = AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * latest
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                           average.assign(self.average))
      v = self._network(features_of(loss, self.average, self._epoch_percent))
      v = tf.cond(self._epoch_percent < self._burn_in_epoch - 1,
                  lambda: tf.ones_like(v), lambda: v)
      return self._drop(v)

  def _drop(self, v):
    """Sets a random share of the weights to zero."""
    if not self._dropout_rates or not any(self._dropout_rates):
      return v
    last = len(self._dropout_rates) - 1
    rate = tf.gather(tf.constant(self._dropout_rates, tf.float32),
                     tf.minimum(self._epoch_percent, last))
    kept = self._uniform(tf.shape(v)) >= rate
    return v * tf.cast(kept, tf.float32)


def _constants(weights):
  return {name: tf.constant(weights[name], tf.float32, name=name)
          for name, _ in SHAPES}


def probe_points():
  """Points that any MentorNet can weigh, [N, 4] float32, with all epochs."""
  rows = np.meshgrid([0, 0.1, 1, 5, 30], [-5, -1, 0, 0.5, 5], [0],
                     np.arange(schedules.NUM_EPOCH_PERCENTS), indexing='ij')
  return np.stack(rows, axis=-1).reshape(-1, NUM_FEATURES).astype(np.float32)


def _read_graph(path):
  """Reads a frozen graph; UserError if it is not a MentorNet."""
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(files.contents(path, _MAX_BYTES))
  except Exception:  # The class depends on the implementation of protobuf.
    raise UserError(f'{path} is not a frozen graph; make it again with '
                    'code/train_mentornet.py')
  foreign = {node.op for node in graph_def.node} - ALLOWED_OPS
  foreign.update(f.signature.name for f in graph_def.library.function)
  if foreign:
    raise UserError(f'{path} holds operations that no MentorNet needs '
                    f'({", ".join(sorted(foreign))}); use another file')
  ops = {node.name: node.op for node in graph_def.node}
  if ops.get(INPUT) != 'Placeholder' or OUTPUT not in ops:
    raise UserError(f'{path} is not a MentorNet: it needs a placeholder '
                    f'{INPUT!r} and a node {OUTPUT!r}')
  _probe(path, graph_def)
  return graph_def


def _probe(path, graph_def):
  """Raises a UserError if a graph does not give weights from 0 to 1."""
  points = probe_points()
  try:
    for node in graph_def.node:  # TensorFlow may abort on damaged constants.
      if node.op == 'Const' and (
          tf.make_ndarray(node.attr['value'].tensor).dtype
          != tf.as_dtype(node.attr['dtype'].type).as_numpy_dtype):
        raise ValueError(f'the constant {node.name} is damaged')
    with tf.Graph().as_default():
      v = _import(graph_def, tf.constant(points))
      with tf.Session(config=runtime.session_config()) as session:
        v = session.run(v)
  except Exception as error:  # A damaged graph raises errors of many classes.
    raise UserError(f'{path} is not a MentorNet: it cannot weigh losses '
                    f'({getattr(error, "message", str(error)):.400})')
  if v.shape != points.shape[:1]:
    raise UserError(f'{path} is not a MentorNet: for {len(points)} examples it '
                    f'gives the shape {list(v.shape)}')
  bad = ~((v >= 0) & (v <= 1))  # NaN, too.
  if bad.any():
    loss, difference, label, epoch = points[bad][0]
    raise UserError(
        f'{path} is not a MentorNet: it gives {v[bad][0]:g} at loss {loss:g}, '
        f'difference {difference:g}, label {label:g}, epoch percentage '
        f'{epoch:g}; weights are from 0 to 1')


def _import(graph_def, features):
  v, = tf.import_graph_def(graph_def, input_map={INPUT: features},
                           return_elements=[OUTPUT + ':0'], name='mentornet')
  if v.shape.ndims == 2:
    v = tf.squeeze(v, 1)
  return v


def _find_checkpoint(path):
  """Finds the checkpoint prefix that `path` is, or that is in `path`."""
  if os.path.isfile(f'{path}.index'):
    return path
  if not os.path.isdir(path):
    problem = 'is not a directory' if os.path.exists(path) else 'does not exist'
    raise UserError(
        f'--trained_mentornet_dir={path} {problem}; name a directory such as '
        f'mentornet_models/mentornet_pd, a checkpoint prefix, {THRESHOLD}, or '
        f'{V_STAR} and a curriculum')
  prefix = checkpoints.newest(path)
  if not prefix:
    raise UserError(
        f'--trained_mentornet_dir={path} holds neither {FROZEN_GRAPH} nor a '
        f'checkpoint that is the only one or named in '
        f'{os.path.join(path, checkpoints.STATE)}; name a checkpoint prefix')
  return prefix
