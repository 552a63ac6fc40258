"""The MentorNet: a small frozen network that weights examples by their loss.

    network = mentornet.load('mentornet_models/mentornet_pd')   # features -> v
    mentor = mentornet.Mentor(network, epoch_percent, ...)      # loss -> v
    v = mentor(loss)                                            # [B], in [0, 1]

MentorNet paper, section 3, and published code. A network never has variables:
it is a GraphDef of constants or a checkpoint turned into constants, so it can
neither be trained nor land in a checkpoint. In its place may stand a plain cut
(`threshold`) or the formula that a network is to learn (`v_star:...`). B is the
batch size.
"""
import glob
import hashlib
import os

import numpy as np

from mentormix import curriculum
from mentormix import files
from mentormix import mentornet_weights
from mentormix import runtime
from mentormix import schedules
from mentormix.command import UserError
from mentormix.mentornet_weights import LSTM
from mentormix.mentornet_weights import SHAPES
from mentormix.runtime import tf

FROZEN_GRAPH = 'mentornet.pb'
THRESHOLD = 'threshold'  # Stands for a directory: no network, a plain cut.
V_STAR = 'v_star:'  # Before the name or file of a curriculum: no network.
INPUT, OUTPUT = 'features', 'weight'  # Node names in a frozen graph.
NUM_FEATURES = 4  # loss, loss - average, label, epoch percentage.
AVERAGE_DECAY = 0.5
SELECTED = 0.5  # An example counts as selected from this weight on.

# An imported graph computes; it does not read, write, call or loop.
ALLOWED_OPS = frozenset("""
    Add AddV2 BiasAdd Cast ClipByValue ConcatV2 Const Exp ExpandDims Floor
    GatherV2 Greater GreaterEqual Identity Less LessEqual MatMul Maximum Minimum
    Mul Neg NoOp Pack Placeholder RealDiv Relu Reshape Select SelectV2 Shape
    Sigmoid Slice Split SplitV Squeeze StridedSlice Sub Tanh""".split())


# Bounds on what an untrusted graph may hold, and on what it may compute of the
# points it is probed with; published networks have 70 nodes.
_MAX_BYTES = 16 << 20
_MAX_NODES = 1000
_MAX_CONSTANT = 1000000  # Elements.
_MAX_ELEMENTS = 50000000
_MAX_RANK = 8

# Operation -> which of its inputs is an axis.
_AXES = {'ConcatV2': -1, 'ExpandDims': 1, 'GatherV2': -1, 'Split': 0,
         'SplitV': -1}

# Attribute -> the largest number it may be, if not _MAX_NODES.
_LARGEST = {'axis': _MAX_RANK, 'batch_dims': 0}

# Type of a constant -> the field of a TensorProto that may hold its elements.
_VALUES = {tf.float32: 'float_val', tf.float64: 'double_val',
           tf.int32: 'int_val', tf.int64: 'int64_val', tf.bool: 'bool_val'}


def network(features, weights):
  """The published architecture, up to its sigmoid.

  Args:
    features: [B, 4] float32: loss, loss minus its moving average, label, epoch
      percentage. Label and epoch are truncated, the epoch clipped to the rows
      of its embedding, published: 0..99.
    weights: name -> tensor, with the names of `SHAPES`; the sizes are free.

  Returns:
    Logits [B] float32; the weight is their sigmoid.
  """
  w = lambda name: weights['mentornet/' + name]
  label = tf.gather(w('label_embedding'), tf.cast(features[:, 2], tf.int32))
  last = w('epoch_embedding').shape[0].value - 1
  epoch = tf.gather(w('epoch_embedding'), tf.clip_by_value(
      tf.cast(features[:, 3], tf.int32), 0, last))
  losses = features[:, :2]
  cells = [_lstm_cell_state(losses, weights[LSTM % (direction, 'kernel')],
                            weights[LSTM % (direction, 'bias')])
           for direction in ('fw', 'bw')]
  x = tf.concat([label, epoch] + cells, axis=1)  # Published: [B, 9],
  hidden = tf.tanh(tf.matmul(x, w('Variable')) + w('Variable_1'))  # [B, 20].
  # The published network adds the bias to the weights, before the product.
  return tf.squeeze(tf.matmul(hidden, w('Variable_2') + w('Variable_3')), 1)


def _lstm_cell_state(x, kernel, bias):
  """Cell state after one step of an LSTM from zero state, forget bias 0.

  From zero, both the recurrent rows of `kernel` and the forget gate drop out.
  """
  gates = tf.matmul(x, kernel[:x.shape[1].value]) + bias
  i, j, _, _ = tf.split(gates, 4, axis=1)
  return tf.sigmoid(i) * tf.tanh(j)


def freeze(weights, directory):
  """Writes a network as `directory`/mentornet.pb, readable by 1.15 and 2.x.

  Its constants have the names of the weights, so that `weights_of` finds them.

  Args:
    weights: name -> NumPy array, with the names of `SHAPES`.
    directory: an existing directory.
  """
  with tf.Graph().as_default() as graph:
    features = tf.placeholder(tf.float32, [None, NUM_FEATURES], name=INPUT)
    logits = network(features, _constants(weights))
    tf.sigmoid(logits, name=OUTPUT)
  # 2.x writes attributes that 1.15 does not know, but only with their defaults.
  graph_def = tf.train.export_meta_graph(
      graph=graph, strip_default_attrs=True).graph_def
  path = os.path.join(directory, FROZEN_GRAPH)
  with files.replaced(path, 'wb') as f:
    f.write(graph_def.SerializeToString(deterministic=True))


def load(path, loss_p_percentile=None):
  """A network, or what stands for one, as `--trained_mentornet_dir` says.

  Args:
    path: a directory with mentornet.pb; a checkpoint prefix in the published
      naming, or a directory with one; `threshold`; or `v_star:` and a
      curriculum, as for `curriculum.get`.
    loss_p_percentile: for `threshold`, the share of examples it lets pass.

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
  """Of the files that `load` reads, which may be none.

  Args:
    path: as for `load`, and one that it takes.
  """
  digest = hashlib.md5()
  for name in _files(path):
    with open(name, 'rb') as f:
      digest.update(f.read())
  return digest.hexdigest()


def _files(path):
  """The files that `load` reads."""
  if path == THRESHOLD:
    return []
  if path.startswith(V_STAR):
    return [path[len(V_STAR):]] if path.endswith('.py') else []
  frozen = os.path.join(path, FROZEN_GRAPH)
  if os.path.isfile(frozen):
    return [frozen]
  prefix = _find_checkpoint(path)
  return [prefix + '.index'] + sorted(
      glob.glob(glob.escape(prefix) + '.data-*'))


def from_weights(weights):
  """A network that is given by its weights.

  Args:
    weights: name -> array, with the names of `SHAPES`.

  Returns:
    A function: features [B, 4] -> v [B], both float32.
  """
  return lambda features: tf.sigmoid(network(features, _constants(weights)))


def weights_of(path):
  """The weights of a network, name -> float32 array with the names of `SHAPES`.

  Args:
    path: as for `load`.

  Raises:
    UserError: as for `load`; or it is no network, or one without these names.
  """
  if path == THRESHOLD or path.startswith(V_STAR):
    raise UserError('--trained_mentornet_dir=%s is no network, so it has no '
                    'weights; name a checkpoint or a directory with %s'
                    % (path, FROZEN_GRAPH))
  frozen = os.path.join(path, FROZEN_GRAPH)
  if not os.path.isfile(frozen):
    return mentornet_weights.read_checkpoint(_find_checkpoint(path))
  arrays = {node.name: tf.make_ndarray(node.attr['value'].tensor)
            for node in _read_graph(frozen).node if node.op == 'Const'}
  if SHAPES[0][0] not in arrays:
    raise UserError('%s computes, but does not name its weights: it was made '
                    'elsewhere or by an earlier version; make it again with '
                    'code/train_mentornet.py' % frozen)
  return mentornet_weights.check(arrays, frozen)


def _formula(path):
  """The network's place taken by the v* that `path` names."""
  try:
    v_star = curriculum.get(path[len(V_STAR):]).v_star
  except UserError as error:
    raise UserError('--trained_mentornet_dir=%s: %s' % (path, error))

  def evaluate(features):
    if np.isnan(features).any():  # As from a network; training says why.
      return np.full(len(features), np.nan, np.float32)
    return v_star(*features.astype(np.float64).T).astype(np.float32)

  def weigh(features):
    v = tf.py_func(evaluate, [features], tf.float32)
    v.set_shape(features.shape[:1])
    return v
  return weigh


def formula_error(error):
  """What a formula said that failed while a session ran; None if none did.

  Args:
    error: a tf.errors.UnknownError, in which TensorFlow wraps it.
  """
  kind, _, said = runtime.reason(error).partition(': ')
  return said if kind == UserError.__name__ else None


def threshold(loss, p):
  """The simplest MentorNet: 1 where loss < its p-percentile, else 0, [B].

  As published, 100 p is cut to whole percents in float64: 0.57 means 56%.
  """
  return tf.cast(tf.less(loss, percentile(loss, int(100 * p))), tf.float32)


def percentile(x, q):
  """The q-th percentile of `x` by nearest rank, 0 <= q <= 100, as published.

  Ranks are counted from the top, rounded half to even in float64: from the
  bottom, ties would fall on the other side.
  """
  last = tf.cast(tf.size(x) - 1, tf.float64)
  rank = tf.cast(tf.round(last * (1.0 - q / 100.0)), tf.int32)
  return tf.nn.top_k(x, k=tf.size(x)).values[rank]


def features_of(loss, average, epoch_percent):
  """What a MentorNet looks at.

  Args:
    loss: [B] float32.
    average: scalar, what the losses are compared with.
    epoch_percent: int32 scalar, how far training is, 0 to 99.

  Returns:
    [B, 4] float32; the label is always 0 (published code).
  """
  epoch = tf.cast(epoch_percent, tf.float32)
  return tf.stack([loss, loss - average, tf.zeros_like(loss),
                   epoch * tf.ones_like(loss)], axis=1)


class Mentor(object):
  """Turns the losses of a batch into weights; keeps their moving average.

  Each call site of the algorithm has a Mentor of its own (published code). What
  a step changes is one variable, the average; its update is in
  tf.GraphKeys.UPDATE_OPS, so reading a weight moves nothing.
  """

  def __init__(self, network, epoch_percent, loss_p_percentile,
               burn_in_epoch=0, dropout_rates=None, name='mentor',
               uniform=tf.random.uniform):
    """Creates a Mentor.

    Args:
      network: features [B, 4] -> v [B], from `load`.
      epoch_percent: int32 scalar, how far training is.
      loss_p_percentile: which percentile of the losses is averaged, 0 to 1.
      burn_in_epoch: v = 1 while epoch_percent < burn_in_epoch - 1.
      dropout_rates: 100 rates by epoch percentage, or None for none.
      name: of the variable scope.
      uniform: a callable, shape -> draws from [0, 1), which decide what is
        dropped.
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
    """Weights v [B] of losses [B]."""
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
    """Zeroes a random share of the weights."""
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
  """Points that any MentorNet can weigh, [N, 4] float32: all epochs."""
  rows = np.meshgrid([0, 0.1, 1, 5, 30], [-5, -1, 0, 0.5, 5], [0],
                     np.arange(schedules.NUM_EPOCH_PERCENTS), indexing='ij')
  return np.stack(rows, axis=-1).reshape(-1, NUM_FEATURES).astype(np.float32)


def _read_graph(path):
  """Parses a frozen graph and refuses what is no MentorNet."""
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(files.contents(path, _MAX_BYTES))
  except Exception:  # protobuf has one exception class per implementation.
    raise UserError('%s is not a frozen graph; remake it with '
                    'code/train_mentornet.py' % path)
  foreign = {node.op for node in graph_def.node} - ALLOWED_OPS
  foreign.update(f.signature.name for f in graph_def.library.function)
  if foreign:
    raise UserError('%s holds %s, which no MentorNet needs; it is refused'
                    % (path, ', '.join(sorted(foreign))))
  ops = {node.name: node.op for node in graph_def.node}
  if ops.get(INPUT) != 'Placeholder' or OUTPUT not in ops:
    raise UserError('%s is no MentorNet: it needs a placeholder %r and a node '
                    '%r' % (path, INPUT, OUTPUT))
  if len(graph_def.node) > _MAX_NODES:
    raise UserError('%s is no MentorNet: it has more than %d nodes'
                    % (path, _MAX_NODES))
  for node in graph_def.node:
    if node.op == 'Const' and not _is_whole(node):
      raise UserError('%s is damaged: the constant %.80r does not fit together'
                      % (path, node.name))
  points = probe_points()
  try:
    with tf.Graph().as_default():
      _check_size(path, graph_def, tf.constant(points))
    with tf.Graph().as_default():
      v = _import(graph_def, tf.constant(points))
      with tf.Session(config=runtime.session_config()) as session:
        v = session.run(v)
  except UserError:
    raise
  except Exception as error:  # A stranger's graph: anything may fail.
    raise UserError('%s is no MentorNet: it cannot weigh losses (%.400s)'
                    % (path, getattr(error, 'message', str(error))))
  if v.shape != points.shape[:1]:
    raise UserError('%s is no MentorNet: for %d examples it gives the shape %s'
                    % (path, len(points), list(v.shape)))
  bad = ~((v >= 0) & (v <= 1))  # NaN, too.
  if bad.any():
    raise UserError('%s is no MentorNet: it gives %g at loss %g, difference '
                    '%g, label %g, epoch percentage %g; weights are from 0 to 1'
                    % ((path, v[bad][0]) + tuple(points[bad][0])))
  return graph_def


def _is_whole(node):
  """Whether a constant has as many elements as its shape says.

  TensorFlow 1.15 ends the process where it has not.
  """
  tensor = node.attr['value'].tensor
  dtypes = [dtype for dtype in _VALUES if dtype.as_datatype_enum == tensor.dtype
            == node.attr['dtype'].type]
  sizes = [dim.size for dim in tensor.tensor_shape.dim]
  if not dtypes or tensor.tensor_shape.unknown_rank or any(
      not 0 <= size <= _MAX_CONSTANT for size in sizes):
    return False
  count = 1
  for size in sizes:
    count *= size
  if tensor.tensor_content:
    held = len(tensor.tensor_content) / float(dtypes[0].size)
    return held == count <= _MAX_CONSTANT
  # The last of them stands for all that are left out.
  held = len(getattr(tensor, _VALUES[dtypes[0]]))
  return count <= _MAX_CONSTANT and min(count, 1) <= held <= count


def _is_moderate(node, known):
  """Whether the integers of a node are such as a MentorNet may have.

  TensorFlow ends the process where some of them are not.
  """
  if any(abs(value.i) > _LARGEST.get(name, _MAX_NODES)
         for name, value in node.attr.items()):
    return False
  if node.op not in _AXES:
    return True
  if len(node.input) < 2:
    return False
  axis = known[node.input[_AXES[node.op]]].op
  if axis.type != 'Const':
    return False
  return (abs(tf.make_ndarray(axis.get_attr('value')).astype(float))
          <= _MAX_RANK).all()


def _check_size(path, graph_def, features):
  """Refuses a graph that computes more than any MentorNet.

  Node by node, since TensorFlow, while it imports a node, computes what decides
  on its shape.
  """
  known, count = {INPUT: features, INPUT + ':0': features}, 0
  for node in graph_def.node:
    if node.name == INPUT:
      continue
    piece = tf.GraphDef(node=[node], versions=graph_def.versions)
    node = piece.node[0]
    inputs = [name for name in node.input if not name.startswith('^')]
    node.input[:] = inputs
    node.attr.pop('_class', None)  # It names another node.
    if not known.keys() >= set(inputs):
      raise ValueError('the inputs of the node %.80r are not before it'
                       % node.name)
    if not _is_moderate(node, known):
      raise ValueError('the node %.80r has an axis or a number out of range'
                       % node.name)
    op, = tf.import_graph_def(
        piece, input_map={name: known[name] for name in inputs},
        return_elements=[node.name], name='mentornet')
    for k, output in enumerate(op.outputs):
      known['%s:%d' % (node.name, k)] = output
      known.setdefault(node.name, output)
      size = output.shape.num_elements()
      if size is None and node.op != 'Placeholder':
        raise UserError('%s is no MentorNet: the shape of its node %.80r '
                        'is not fixed' % (path, node.name))
      count += size or 0
    if count > _MAX_ELEMENTS:
      raise UserError('%s is no MentorNet: it computes %d numbers or more for '
                      '%d examples; it is refused'
                      % (path, count, features.shape[0].value))


def _import(graph_def, features):
  v, = tf.import_graph_def(graph_def, input_map={INPUT: features},
                           return_elements=[OUTPUT + ':0'], name='mentornet')
  if v.shape.ndims == 2:
    v = tf.squeeze(v, 1)
  return v


def _find_checkpoint(path):
  """The checkpoint prefix that `path` names or holds."""
  if os.path.isfile(path + '.index'):
    return path
  if not os.path.isdir(path):
    raise UserError(
        '--trained_mentornet_dir=%s %s; give a directory such as '
        'mentornet_models/mentornet_pd, a checkpoint prefix, %s, or %s and a '
        'curriculum' % (path, 'is no directory' if os.path.exists(path) else
                        'does not exist', THRESHOLD, V_STAR))
  found = sorted(glob.glob(os.path.join(glob.escape(path), '*.index')))
  try:
    state = tf.train.get_checkpoint_state(path)
  except (ValueError, tf.errors.OpError):
    raise UserError('%s is damaged; remove it, or name a checkpoint prefix'
                    % os.path.join(path, 'checkpoint'))
  # The directory may have been moved, and nothing outside of it is meant.
  latest = os.path.join(path, os.path.basename(
      state.model_checkpoint_path)) if state else None
  if latest is None or latest + '.index' not in found:
    latest = found[0][:-len('.index')] if len(found) == 1 else None
  if not latest:
    raise UserError(
        '--trained_mentornet_dir=%s holds neither %s nor %s checkpoint'
        % (path, FROZEN_GRAPH, 'one single' if found else 'a'))
  return latest
