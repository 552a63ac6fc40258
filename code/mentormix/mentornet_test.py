"""The MentorNet against the published numbers, and how it is loaded."""
import os

import numpy as np
import pytest

from mentormix import mentornet
from mentormix import testing
from mentormix.command import UserError
from mentormix.runtime import tf


@pytest.fixture(scope='module')
def golden():
  return testing.golden()


@pytest.fixture(scope='module')
def weights(golden):
  return {name: golden['mn/random/' + name] for name, _ in mentornet.SHAPES}


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(1)


def _write_checkpoint(weights, prefix):
  """A checkpoint in the published naming, with optimizer slots and a step."""
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in weights.items():
      tf.get_variable(name, initializer=tf.constant(value))
      tf.get_variable(name + '/Adam', initializer=tf.constant(value))
    tf.train.create_global_step()
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, prefix)


def _outputs(network, features):
  with tf.Session() as session:
    return session.run(network(tf.constant(features)))


def test_shapes_and_order_are_the_published_ones(golden):
  assert [n for n, _ in mentornet.SHAPES] == list(golden['mn/var_order'])
  for name, shape in mentornet.SHAPES:
    assert golden['mn/random/' + name].shape == shape


def test_network_is_the_published_function(golden, weights):
  logits = mentornet.network(tf.constant(golden['mn/grid']),
                             mentornet._constants(weights))
  with tf.Session() as session:
    logits, v = session.run([logits, tf.sigmoid(logits)])
  np.testing.assert_allclose(logits, golden['mn/random/out_linear'][:, 0],
                             rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(v, golden['mn/random/out_sigmoid'][:, 0],
                             rtol=1e-5, atol=1e-6)


def test_output_bias_is_added_to_the_weights(weights):
  features = np.array([[1.0, 0.5, 0, 3]], np.float32)
  moved = dict(weights)
  moved['mentornet/Variable_3'] = weights['mentornet/Variable_3'] + 0.25
  shifted = dict(weights)
  shifted['mentornet/Variable_2'] = weights['mentornet/Variable_2'] + 0.25
  logits = [mentornet.network(tf.constant(features), mentornet._constants(w))
            for w in (moved, shifted, weights)]
  with tf.Session() as session:
    moved, shifted, original = session.run(logits)
  np.testing.assert_allclose(moved, shifted, rtol=1e-5)
  assert abs(moved - original) > 1e-3


@pytest.mark.parametrize('form', ['frozen', 'prefix', 'directory', 'moved'])
def test_every_form_of_a_network_loads(golden, weights, form, tmp_path):
  if form == 'frozen':
    mentornet.freeze(weights, str(tmp_path))
    path = str(tmp_path)
  else:
    prefix = str(tmp_path / 'mentornet.ckpt-7')
    _write_checkpoint(weights, prefix)
    if form == 'moved':  # As downloaded: without the `checkpoint` state file.
      os.remove(str(tmp_path / 'checkpoint'))
    path = prefix if form == 'prefix' else str(tmp_path)
  network = mentornet.load(path)
  np.testing.assert_allclose(_outputs(network, golden['mn/grid']),
                             golden['mn/random/out_sigmoid'][:, 0],
                             rtol=1e-5, atol=1e-6)
  assert not tf.global_variables()


def test_freezing_gives_the_same_bytes(weights, tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    mentornet.freeze(weights, str(tmp_path / name))
  read = lambda n: (tmp_path / n / mentornet.FROZEN_GRAPH).read_bytes()
  assert read('a') == read('b')


def test_directory_without_a_mentornet(tmp_path):
  with pytest.raises(UserError, match='holds neither'):
    mentornet.load(str(tmp_path))
  with pytest.raises(UserError, match='does not exist'):
    mentornet.load(str(tmp_path / 'nowhere'))


def test_checkpoint_that_is_no_mentornet(weights, tmp_path):
  partial = dict(weights)
  del partial['mentornet/epoch_embedding']
  _write_checkpoint(partial, str(tmp_path / 'partial'))
  with pytest.raises(UserError, match='lacks.*mentornet/epoch_embedding'):
    mentornet.load(str(tmp_path / 'partial'))
  bad = dict(weights)
  bad['mentornet/Variable'] = np.zeros([8, 20], np.float32)
  _write_checkpoint(bad, str(tmp_path / 'bad'))
  with pytest.raises(UserError, match='do not fit together'):
    mentornet.load(str(tmp_path / 'bad'))
  (tmp_path / 'junk.index').write_bytes(b'junk')
  with pytest.raises(UserError, match='junk'):
    mentornet.load(str(tmp_path / 'junk'))


def _freeze_graph(build, directory):
  with tf.Graph().as_default() as graph:
    build(tf.placeholder(tf.float32, [None, 4], name='features'))
    data = graph.as_graph_def().SerializeToString()
  with open(os.path.join(directory, mentornet.FROZEN_GRAPH), 'wb') as f:
    f.write(data)


@pytest.mark.parametrize('build,message', [
    (lambda x: tf.write_file(tf.constant('/tmp/x'), tf.constant('y')),
     'WriteFile'),
    (lambda x: tf.read_file(tf.constant('/etc/hostname')), 'ReadFile'),
    (lambda x: tf.py_func(lambda y: y, [x], tf.float32), 'PyFunc'),
    (lambda x: tf.identity(x, name='logits'), "node 'weight'"),
    (lambda x: tf.identity(x[:, 0] * 0 + 3, name='weight'), 'is no MentorNet'),
    (lambda x: tf.identity(tf.sigmoid(x), name='weight'), 'is no MentorNet'),
])
def test_frozen_graph_that_is_no_mentornet(build, message, tmp_path):
  _freeze_graph(build, str(tmp_path))
  with pytest.raises(UserError, match=message):
    mentornet.load(str(tmp_path))


def test_file_that_is_no_graph(tmp_path):
  (tmp_path / mentornet.FROZEN_GRAPH).write_bytes(b'\x07not a graph')
  with pytest.raises(UserError, match='mentornet.pb'):
    mentornet.load(str(tmp_path))


def test_mentor_over_twelve_calls(golden, weights):
  """Moving average and weights, call after call, as published."""
  loss = tf.placeholder(tf.float32, [128])
  epoch = tf.placeholder(tf.int32, [])
  sigmoids = []

  def network(features):
    sigmoids.append(tf.sigmoid(
        mentornet.network(features, mentornet._constants(weights))))
    return sigmoids[-1]

  mentor = mentornet.Mentor(network, epoch, 0.5, burn_in_epoch=10)
  v = mentor(loss)
  update = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  assert len(update) == 1
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for call, percent in enumerate(golden['wrap/epochs']):
      feed = {loss: golden['wrap/losses'][call, :, 0], epoch: percent}
      average, value, (sigmoid,), _ = session.run(
          [mentor.average, v, sigmoids, update], feed)
      np.testing.assert_allclose(
          sigmoid, golden['wrap/random_p0.5/sigmoid'][call, :, 0], rtol=1e-4,
          atol=1e-6)
      np.testing.assert_allclose(
          average, golden['wrap/random_p0.5/moving_avg'][call], rtol=1e-5)
      np.testing.assert_allclose(
          value, golden['wrap/random_p0.5/v'][call, :, 0], rtol=1e-4,
          atol=1e-6)
      if percent < 9:
        np.testing.assert_array_equal(value, np.ones(128))


def test_reading_a_weight_moves_nothing():
  mentor = mentornet.Mentor(lambda f: f[:, 0] * 0 + 0.5, tf.constant(50), 0.5)
  v = mentor(tf.constant([1.0, 2.0, 3.0]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    first = session.run([v, mentor.average])[1]
    assert session.run([v, mentor.average])[1] == first == 1.0


def test_two_mentors_have_two_averages():
  network = lambda f: tf.sigmoid(f[:, 0])
  for name in ('one', 'two'):
    mentornet.Mentor(network, tf.constant(0), 0.5, name=name)(tf.ones([4]))
  assert [v.op.name for v in tf.global_variables()] == [
      'one/loss_average', 'two/loss_average']
  assert not tf.trainable_variables()


@pytest.mark.parametrize('which', ['loss', 'loss_ties'])
def test_threshold(golden, which):
  loss = tf.constant(golden['thr/' + which][:, 0])
  prefix = 'thr/%s_v_' % which
  keys = [key for key in golden if key.startswith(prefix)]
  assert len(keys) == 11
  with tf.Session() as session:
    for key in keys:
      v = mentornet.threshold(loss, float(key[len(prefix):]))
      np.testing.assert_array_equal(session.run(v), golden[key][:, 0], key)


def test_threshold_as_a_mentor():
  network = mentornet.load('threshold', 0.5)
  features = np.zeros([5, 4], np.float32)
  features[:, 0] = [5, 1, 4, 2, 3]
  np.testing.assert_array_equal(_outputs(network, features), [0, 1, 0, 1, 0])


def test_example_dropout():
  rates = [0.0] * 50 + [0.25] * 50
  epoch = tf.placeholder(tf.int32, [])
  mentor = mentornet.Mentor(lambda f: f[:, 0], epoch, 0.5,
                            dropout_rates=rates)
  v = mentor(tf.ones([20000]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run(v, {epoch: 49}).mean() == 1
    for percent in (50, 100):
      assert abs(session.run(v, {epoch: percent}).mean() - 0.75) < 0.02
