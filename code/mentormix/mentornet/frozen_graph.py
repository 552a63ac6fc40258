"""A MentorNet as a frozen graph: written, vetted and imported."""
import os

import numpy as np

from mentormix import file_kinds
from mentormix import files
from mentormix import runtime
from mentormix import schedules
from mentormix.mentornet import network
from mentormix.messages import UserError
from mentormix.runtime import tf

FROZEN_GRAPH = 'mentornet.pb'

INPUT, OUTPUT = 'features', 'weight'  # Node names in a frozen graph.

# A frozen graph computes; it does not read, write, call or loop.
ALLOWED_OPS = frozenset("""
    Add AddV2 BiasAdd Cast ClipByValue ConcatV2 Const Exp ExpandDims Floor
    GatherV2 Greater GreaterEqual Identity Less LessEqual MatMul Maximum Minimum
    Mul Neg NoOp Pack Placeholder RealDiv Relu Reshape Select SelectV2 Shape
    Sigmoid Slice Split SplitV Squeeze StridedSlice Sub Tanh""".split())
_MAX_BYTES = 16 << 20  # Of a frozen graph.


def freeze(weights, directory):
  """Writes a network to `directory`/mentornet.pb, for TensorFlow 1.15 and 2.x.

  The constants have the names of the weights, so that
  `loading.weights_of` finds them.

  Args:
    weights: name -> NumPy array, with the names of `SHAPES`.
    directory: an existing directory.
  """
  with tf.Graph().as_default() as graph:
    features = tf.placeholder(tf.float32, [None, network.NUM_FEATURES],
                              name=INPUT)
    logits = network.network(features, network.constants(weights))
    tf.sigmoid(logits, name=OUTPUT)
  # The attributes that 2.x writes and 1.15 does not know have default values.
  graph_def = tf.train.export_meta_graph(
      graph=graph, strip_default_attrs=True).graph_def
  path = os.path.join(directory, FROZEN_GRAPH)
  with files.replaced(path, 'wb') as f:
    f.write(graph_def.SerializeToString(deterministic=True))


def probe_points():
  """Points that any MentorNet can weigh, [N, 4] float32, with all epochs."""
  rows = np.meshgrid([0, 0.1, 1, 5, 30], [-5, -1, 0, 0.5, 5], [0],
                     np.arange(schedules.NUM_EPOCH_PERCENTS), indexing='ij')
  points = np.stack(rows, axis=-1).reshape(-1, network.NUM_FEATURES)
  return points.astype(np.float32)


def read_graph(path):
  """Reads a frozen graph; UserError if it is not a MentorNet."""
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(files.contents(path, _MAX_BYTES))
  except Exception:  # The class depends on the implementation of protobuf.
    raise UserError(f'{path} is not a frozen graph{file_kinds.explain(path)}; '
                    'make it again with code/train_mentornet.py')
  foreign = {node.op for node in graph_def.node} - ALLOWED_OPS
  foreign.update(f.signature.name for f in graph_def.library.function)
  if foreign:
    raise UserError(f'{path} holds operations that no MentorNet needs '
                    f'({", ".join(sorted(foreign))}); use another file')
  ops = {node.name: node.op for node in graph_def.node}
  if ops.get(INPUT) != 'Placeholder' or OUTPUT not in ops:
    raise UserError(f'{path} is not a MentorNet{file_kinds.explain(path)}: it '
                    f'needs a placeholder {INPUT!r} and a node {OUTPUT!r}')
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
      v = import_graph(graph_def, tf.constant(points))
      with tf.Session(config=runtime.session_config()) as session:
        v = session.run(v)
  except Exception as error:  # A damaged graph raises errors of many classes.
    raise UserError(f'{path} is not a MentorNet: it cannot weigh losses '
                    f'({getattr(error, "message", str(error)):.400})')
  if v.shape != points.shape[:1] or not ((v >= 0) & (v <= 1)).all():
    raise UserError(f'{path} is not a MentorNet: it does not give one weight '
                    'from 0 to 1 for each example')


def import_graph(graph_def, features):
  """Imports a frozen graph: features [B, 4] -> v [B]."""
  v, = tf.import_graph_def(graph_def, input_map={INPUT: features},
                           return_elements=[OUTPUT + ':0'], name='mentornet')
  if v.shape.ndims == 2:
    v = tf.squeeze(v, 1)
  return v
