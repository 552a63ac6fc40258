"""Frozen graphs: how they are written, and which ones are refused."""
import hypothesis
from hypothesis import strategies
import pytest

from mentormix import testing
from mentormix.mentornet import frozen_graph
from mentormix.messages import UserError
from mentormix.runtime import tf


def test_freezing_gives_the_same_bytes(weights, tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    frozen_graph.freeze(weights, str(tmp_path / name))
  read = lambda n: (tmp_path / n / frozen_graph.FROZEN_GRAPH).read_bytes()
  assert read('a') == read('b')


def _freeze_graph(build, directory):
  """Writes a graph that `build` makes of its features; returns the path."""
  with tf.Graph().as_default() as graph:
    build(tf.placeholder(tf.float32, [None, 4], name='features'))
    data = graph.as_graph_def().SerializeToString()
  path = directory / frozen_graph.FROZEN_GRAPH
  path.write_bytes(data)
  return path


@pytest.mark.parametrize('build,message', [
    (lambda x: tf.write_file(tf.constant('/tmp/x'), tf.constant('y')),
     'WriteFile'),
    (lambda x: tf.read_file(tf.constant('/etc/hostname')), 'ReadFile'),
    (lambda x: tf.py_func(lambda y: y, [x], tf.float32), 'PyFunc'),
    (lambda x: tf.identity(x, name='logits'), "node 'weight'"),
    (lambda x: tf.identity(x[:, 0] * 0 + 3, name='weight'),
     'does not give one weight'),
    (lambda x: tf.identity(tf.sigmoid(x), name='weight'), 'is not a MentorNet'),
    (lambda x: tf.sigmoid(x[:1, 0], name='weight'), 'does not give one weight'),
    # Valid at first, but not at the end of training.
    (lambda x: tf.gather(tf.zeros([99]), tf.cast(x[:, 3], tf.int32),
                         name='weight'), 'cannot weigh losses'),
    (lambda x: tf.maximum(0.0, x[:, 3] - 97, name='weight'),
     'does not give one weight'),
    # NaN where the difference is 0; negative where the difference is.
    (lambda x: tf.sigmoid(x[:, 1] / x[:, 1], name='weight'),
     'does not give one weight'),
    (lambda x: tf.minimum(0.5, x[:, 1], name='weight'),
     'does not give one weight'),
])
def test_frozen_graph_that_is_not_a_mentornet(build, message, tmp_path):
  path = _freeze_graph(build, tmp_path)
  with pytest.raises(UserError, match=message):
    frozen_graph.read_graph(str(path))


@pytest.mark.parametrize('change', [
    lambda tensor: tensor.tensor_shape.dim.add(size=-1),
    lambda tensor: tensor.float_val.extend([1, 2]),
    lambda tensor: setattr(tensor, 'tensor_content', b'12345'),
    lambda tensor: setattr(tensor, 'dtype', 0),
    lambda tensor: setattr(tensor, 'dtype', 3),
    lambda tensor: setattr(tensor, 'dtype', 7),  # Strings.
    lambda tensor: setattr(tensor, 'dtype', 999),
    lambda tensor: tensor.Clear()])
def test_a_damaged_constant(change, tmp_path):
  """TensorFlow aborts on some of these."""
  path = _freeze_graph(
      lambda x: tf.sigmoid(x[:, 0] * tf.constant([2.0], name='c'),
                           name='weight'), tmp_path)
  frozen_graph.read_graph(str(path))
  graph_def = tf.GraphDef.FromString(path.read_bytes())
  node, = [node for node in graph_def.node if node.name == 'c']
  change(node.attr['value'].tensor)
  path.write_bytes(graph_def.SerializeToString())
  with pytest.raises(UserError, match='it cannot weigh losses'):
    frozen_graph.read_graph(str(path))


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
  path = _freeze_graph(lambda x: tf.sigmoid(x[:, 0], name='weight'), tmp_path)
  frozen_graph.read_graph(str(path))
  monkeypatch.setattr(frozen_graph, '_MAX_BYTES', 100)
  with pytest.raises(UserError, match='is not a frozen graph'):
    frozen_graph.read_graph(str(path))


# The same damage each time: other damage may abort TensorFlow.
@hypothesis.settings(max_examples=25, deadline=None, derandomize=True,
                     database=None, suppress_health_check=[
                         hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=strategies.data())
def test_random_damage_to_a_frozen_graph(data, weights, tmp_path):
  """Gives weights from 0 to 1, or a clean error: a graph has no checksum."""
  frozen_graph.freeze(weights, str(tmp_path))
  path = tmp_path / frozen_graph.FROZEN_GRAPH
  path.write_bytes(data.draw(testing.damaged(path.read_bytes())))
  try:
    graph_def = frozen_graph.read_graph(str(path))
  except UserError as error:
    assert len(str(error).splitlines()) == 1
    return
  with tf.Graph().as_default(), tf.Session() as session:
    v = session.run(frozen_graph.import_graph(
        graph_def, tf.constant(frozen_graph.probe_points())))
  assert ((v >= 0) & (v <= 1)).all()


def test_a_file_that_is_not_a_graph(tmp_path):
  path = tmp_path / frozen_graph.FROZEN_GRAPH
  path.write_bytes(b'\x07not a graph')
  with pytest.raises(UserError, match='mentornet.pb is not a frozen graph'):
    frozen_graph.read_graph(str(path))
