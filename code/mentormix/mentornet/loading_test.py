"""Tests the MentorNet against the published numbers, and its loading."""
import hashlib
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from mentormix.mentornet import curriculum
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import loading as mentornet_loading
from mentormix.mentornet import mentor as mentor_lib
from mentormix.mentornet import network as network_lib
from mentormix.mentornet import weights as mentornet_weights
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix import testing


@pytest.fixture(scope='module')
def golden():
  return testing.golden()


@pytest.fixture(scope='module')
def weights(golden):
  return {name: golden['mn/random/' + name] for name, _ in mentornet_weights.SHAPES}


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
  assert [n for n, _ in mentornet_weights.SHAPES] == list(golden['mn/var_order'])
  for name, shape in mentornet_weights.SHAPES:
    assert golden['mn/random/' + name].shape == shape


def test_network_is_the_published_function(golden, weights):
  logits = network_lib.network(tf.constant(golden['mn/grid']),
                             network_lib.constants(weights))
  with tf.Session() as session:
    logits, v = session.run([logits, tf.sigmoid(logits)])
  np.testing.assert_allclose(logits, golden['mn/random/out_linear'][:, 0],
                             rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(v, golden['mn/random/out_sigmoid'][:, 0],
                             rtol=1e-5, atol=1e-6)


def _published(features, weights):
  """The published network in NumPy, recurrent part and all: v [B]."""
  w = lambda name: np.float64(weights['mentornet/' + name])
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  x = np.float64(features)
  parts = [w('label_embedding')[x[:, 2].astype(int)],
           w('epoch_embedding')[np.clip(x[:, 3].astype(int), 0, 99)]]
  for direction in ('fw', 'bw'):
    cell = f'bidirectional_rnn/{direction}/basic_lstm_cell/'
    bias = w(cell + 'bias')
    h = c = np.zeros([len(x), len(bias) // 4])
    gates = np.concatenate([x[:, :2], h], axis=1) @ w(cell + 'kernel') + bias
    i, j, f, _ = np.split(gates, 4, axis=1)
    parts.append(c * sigmoid(f + 0.0) + sigmoid(i) * np.tanh(j))
  hidden = np.tanh(np.concatenate(parts, axis=1) @ w('Variable')
                   + w('Variable_1'))
  return sigmoid(hidden @ (w('Variable_2') + w('Variable_3')))[:, 0]


def _random_weights(**sizes):
  random = np.random.RandomState(1)
  published = dict(label=(2, 2), epoch=(100, 5), lstm=1, hidden=20)
  shapes = mentornet_weights.shapes(**dict(published, **sizes))
  return {name: random.normal(size=shape).astype(np.float32)
          for name, shape in shapes}


def _random_features(labels, epochs, size=500):
  random = np.random.RandomState(2)
  return np.stack([
      random.exponential(2, size), random.normal(size=size),
      random.randint(labels, size=size), random.randint(epochs, size=size)],
                  axis=1).astype(np.float32)


SIZES = [dict(), dict(lstm=2), dict(lstm=5), dict(label=(10, 3)),
         dict(epoch=(100, 2)), dict(epoch=(10, 5)), dict(hidden=7),
         dict(label=(10, 3), epoch=(50, 2), lstm=5, hidden=7)]


def test_the_reference_gives_the_published_numbers(golden, weights):
  np.testing.assert_allclose(_published(golden['mn/grid'], weights),
                             golden['mn/random/out_sigmoid'][:, 0],
                             rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('form', ['frozen', 'checkpoint'])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_networks_of_any_size(sizes, form, tmp_path):
  weights = _random_weights(**sizes)
  if form == 'frozen':
    frozen_graph.freeze(weights, str(tmp_path))
  else:
    _write_checkpoint(weights, str(tmp_path / 'mentornet.ckpt-7'))
  features = _random_features(sizes.get('label', (2,))[0],
                              sizes.get('epoch', (100,))[0])
  np.testing.assert_allclose(
      _outputs(mentornet_loading.load(str(tmp_path)), features),
      _published(features, weights), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('rows', [1, 10, 99, 100])
def test_epochs_end_with_their_embedding(rows, tmp_path):
  weights = _random_weights(epoch=(rows, 5))
  frozen_graph.freeze(weights, str(tmp_path))
  features = np.zeros([5, 4], np.float32)
  features[:, 3] = [-7, 0, 9.9, 99, 120]
  inside = np.copy(features)
  inside[:, 3] = np.minimum([0, 0, 9, 99, 99], rows - 1)
  np.testing.assert_allclose(
      _outputs(mentornet_loading.load(str(tmp_path)), features),
      _published(inside, weights), rtol=1e-4, atol=1e-6)


def test_output_bias_is_added_to_the_weights(weights):
  features = np.array([[1.0, 0.5, 0, 3]], np.float32)
  moved = dict(weights)
  moved['mentornet/Variable_3'] = weights['mentornet/Variable_3'] + 0.25
  shifted = dict(weights)
  shifted['mentornet/Variable_2'] = weights['mentornet/Variable_2'] + 0.25
  logits = [network_lib.network(tf.constant(features), network_lib.constants(w))
            for w in (moved, shifted, weights)]
  with tf.Session() as session:
    moved, shifted, original = session.run(logits)
  np.testing.assert_allclose(moved, shifted, rtol=1e-5)
  assert abs(moved - original) > 1e-3


@pytest.mark.parametrize('form', ['frozen', 'prefix', 'directory', 'moved'])
def test_every_form_of_a_network_loads(golden, weights, form, tmp_path):
  if form == 'frozen':
    frozen_graph.freeze(weights, str(tmp_path))
    path = str(tmp_path)
  else:
    prefix = str(tmp_path / 'mentornet.ckpt-7')
    _write_checkpoint(weights, prefix)
    if form == 'moved':  # As downloaded: without the `checkpoint` state file.
      os.remove(str(tmp_path / 'checkpoint'))
    path = prefix if form == 'prefix' else str(tmp_path)
  network = mentornet_loading.load(path)
  np.testing.assert_allclose(_outputs(network, golden['mn/grid']),
                             golden['mn/random/out_sigmoid'][:, 0],
                             rtol=1e-5, atol=1e-6)
  assert not tf.global_variables()


def test_freezing_gives_the_same_bytes(weights, tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    frozen_graph.freeze(weights, str(tmp_path / name))
  read = lambda n: (tmp_path / n / frozen_graph.FROZEN_GRAPH).read_bytes()
  assert read('a') == read('b')


@pytest.mark.parametrize('listed', [
    '{0}/outside/mentornet.ckpt-7', '../outside/mentornet.ckpt-7',
    '../mentornet.ckpt-7', '/nowhere/mentornet.ckpt-7', 'mentornet.ckpt-7'])
def test_the_list_of_checkpoints_names_nothing_outside(weights, listed,
                                                       tmp_path):
  for folder, value in (('outside', 9), ('.', 9), ('inside', 1)):
    (tmp_path / folder).mkdir(exist_ok=True)
    for step in (5, 7):
      _write_checkpoint({name: np.full_like(x, value)
                         for name, x in weights.items()},
                        str(tmp_path / folder / f'mentornet.ckpt-{step}'))
  (tmp_path / 'inside' / 'checkpoint').write_text(
      f'model_checkpoint_path: "{listed.format(tmp_path)}"')
  for value in mentornet_loading.weights_of(str(tmp_path / 'inside')).values():
    np.testing.assert_array_equal(value, 1)


@pytest.mark.parametrize('text', [
    'model_checkpoint_path: "mentornet.ckpt-6"', 'model_checkpoint_path: ".."',
    'model_checkpoint_path: "*-7"', 'junk', '', 'model_checkpoint_path: ""'])
def test_a_list_that_names_no_checkpoint(weights, text, tmp_path):
  for step in (5, 7):
    _write_checkpoint(weights, str(tmp_path / f'mentornet.ckpt-{step}'))
  (tmp_path / 'checkpoint').write_text(text)
  with pytest.raises(UserError, match=(
      'holds neither .* nor a checkpoint that is the only one or named in '
      '.*/checkpoint; name a checkpoint prefix')):
    mentornet_loading.load(str(tmp_path))


def test_directory_without_a_mentornet(tmp_path):
  with pytest.raises(UserError, match='holds neither'):
    mentornet_loading.load(str(tmp_path))
  with pytest.raises(UserError, match='does not exist'):
    mentornet_loading.load(str(tmp_path / 'nowhere'))
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='is not a directory'):
    mentornet_loading.load(str(tmp_path / 'file'))


@pytest.mark.parametrize('sizes', [SIZES[0], SIZES[-1]], ids=str)
def test_the_weights_can_be_read_back(sizes, tmp_path):
  weights = _random_weights(**sizes)
  for name in ('frozen', 'checkpoint'):
    (tmp_path / name).mkdir()
  frozen_graph.freeze(weights, str(tmp_path / 'frozen'))
  prefix = str(tmp_path / 'checkpoint' / 'mentornet.ckpt-7')
  _write_checkpoint(weights, prefix)
  for path in (tmp_path / 'frozen', tmp_path / 'checkpoint', prefix):
    found = mentornet_loading.weights_of(str(path))
    assert list(found) == [name for name, _ in mentornet_weights.SHAPES]
    for name, value in weights.items():
      assert found[name].dtype == np.float32
      np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize('path', ['threshold', 'v_star:focal'])
def test_what_is_not_a_network_has_no_weights(path):
  with pytest.raises(UserError, match=f'{path} is not a network'):
    mentornet_loading.weights_of(path)


def test_weights_without_their_names(tmp_path):
  _freeze_graph(lambda x: tf.sigmoid(x[:, 0], name='weight'), str(tmp_path))
  mentornet_loading.load(str(tmp_path))
  with pytest.raises(UserError, match='does not name its weights'):
    mentornet_loading.weights_of(str(tmp_path))


def _freeze_graph(build, directory):
  with tf.Graph().as_default() as graph:
    build(tf.placeholder(tf.float32, [None, 4], name='features'))
    data = graph.as_graph_def().SerializeToString()
  with open(os.path.join(directory, frozen_graph.FROZEN_GRAPH), 'wb') as f:
    f.write(data)


@pytest.mark.parametrize('build,message', [
    (lambda x: tf.write_file(tf.constant('/tmp/x'), tf.constant('y')),
     'WriteFile'),
    (lambda x: tf.read_file(tf.constant('/etc/hostname')), 'ReadFile'),
    (lambda x: tf.py_func(lambda y: y, [x], tf.float32), 'PyFunc'),
    (lambda x: tf.identity(x, name='logits'), "node 'weight'"),
    (lambda x: tf.identity(x[:, 0] * 0 + 3, name='weight'), 'it gives 3 at'),
    (lambda x: tf.identity(tf.sigmoid(x), name='weight'), 'is not a MentorNet'),
    (lambda x: tf.sigmoid(x[:1, 0], name='weight'), r'gives the shape \[1\]'),
    # Valid at first, but not at the end of training.
    (lambda x: tf.gather(tf.zeros([99]), tf.cast(x[:, 3], tf.int32),
                         name='weight'), 'cannot weigh losses'),
    (lambda x: tf.maximum(0.0, x[:, 3] - 97, name='weight'),
     'it gives 2 at loss .* epoch percentage 99'),
    # NaN where the difference is 0; negative where the difference is.
    (lambda x: tf.sigmoid(x[:, 1] / x[:, 1], name='weight'),
     'it gives -?nan at loss 0, difference 0'),
    (lambda x: tf.minimum(0.5, x[:, 1], name='weight'),
     'it gives -5 at loss 0, difference -5'),
])
def test_frozen_graph_that_is_not_a_mentornet(build, message, tmp_path):
  _freeze_graph(build, str(tmp_path))
  with pytest.raises(UserError, match=message):
    mentornet_loading.load(str(tmp_path))


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
  _freeze_graph(lambda x: tf.sigmoid(x[:, 0] * tf.constant([2.0], name='c'),
                                     name='weight'), str(tmp_path))
  mentornet_loading.load(str(tmp_path))
  path = tmp_path / frozen_graph.FROZEN_GRAPH
  graph_def = tf.GraphDef.FromString(path.read_bytes())
  node, = [node for node in graph_def.node if node.name == 'c']
  change(node.attr['value'].tensor)
  path.write_bytes(graph_def.SerializeToString())
  with pytest.raises(UserError, match='it cannot weigh losses'):
    mentornet_loading.load(str(tmp_path))


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
  _freeze_graph(lambda x: tf.sigmoid(x[:, 0], name='weight'), str(tmp_path))
  mentornet_loading.load(str(tmp_path))
  monkeypatch.setattr(frozen_graph, '_MAX_BYTES', 100)
  with pytest.raises(UserError, match='is not a frozen graph'):
    mentornet_loading.load(str(tmp_path))


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
    network = mentornet_loading.load(str(tmp_path))
  except UserError as error:
    assert len(str(error).splitlines()) == 1
  else:
    with tf.Graph().as_default():
      v = _outputs(network, frozen_graph.probe_points())
    assert ((v >= 0) & (v <= 1)).all()


def test_file_that_is_not_a_graph(tmp_path):
  (tmp_path / frozen_graph.FROZEN_GRAPH).write_bytes(b'\x07not a graph')
  with pytest.raises(UserError, match='mentornet.pb'):
    mentornet_loading.load(str(tmp_path))


def test_mentor_over_twelve_calls(golden, weights):
  """Moving average and weights, call after call, as published."""
  loss = tf.placeholder(tf.float32, [128])
  epoch = tf.placeholder(tf.int32, [])
  sigmoids = []

  def network(features):
    sigmoids.append(network_lib.from_weights(weights)(features))
    return sigmoids[-1]

  mentor = mentor_lib.Mentor(network, epoch, 0.5, burn_in_epoch=10)
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
  mentor = mentor_lib.Mentor(lambda f: f[:, 0] * 0 + 0.5, tf.constant(50), 0.5)
  v = mentor(tf.constant([1.0, 2.0, 3.0]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    first = session.run([v, mentor.average])[1]
    assert session.run([v, mentor.average])[1] == first == 1.0


def test_two_mentors_have_two_averages():
  network = lambda f: tf.sigmoid(f[:, 0])
  for name in ('one', 'two'):
    mentor_lib.Mentor(network, tf.constant(0), 0.5, name=name)(tf.ones([4]))
  assert [v.op.name for v in tf.global_variables()] == [
      'one/loss_average', 'two/loss_average']
  assert not tf.trainable_variables()


@pytest.mark.parametrize('which', ['loss', 'loss_ties'])
def test_threshold(golden, which):
  loss = tf.constant(golden['thr/' + which][:, 0])
  prefix = f'thr/{which}_v_'
  keys = [key for key in golden if key.startswith(prefix)]
  assert len(keys) == 11
  with tf.Session() as session:
    for key in keys:
      v = mentor_lib.threshold(loss, float(key[len(prefix):]))
      np.testing.assert_array_equal(session.run(v), golden[key][:, 0], key)


def test_threshold_as_a_mentor():
  network = mentornet_loading.load('threshold', 0.5)
  features = np.zeros([5, 4], np.float32)
  features[:, 0] = [5, 1, 4, 2, 3]
  np.testing.assert_array_equal(_outputs(network, features), [0, 1, 0, 1, 0])


def test_example_dropout():
  rates = [0.0] * 50 + [0.25] * 50
  epoch = tf.placeholder(tf.int32, [])
  mentor = mentor_lib.Mentor(lambda f: f[:, 0], epoch, 0.5,
                            dropout_rates=rates)
  v = mentor(tf.ones([20000]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run(v, {epoch: 49}).mean() == 1
    for percent in (50, 100):
      assert abs(session.run(v, {epoch: percent}).mean() - 0.75) < 0.02


FORMULA = """
def v_star(loss, difference, label, epoch):
  assert epoch.dtype == 'float64' and (label == 0).all()
  assert epoch.max() < 99 or loss.max() < 20, 'never seen'
  return 1 / (1 + loss + abs(difference)) * (epoch < 50)
"""


@pytest.mark.parametrize('name', list(curriculum.CURRICULA) + ['file'])
def test_a_formula_in_place_of_a_network(name, tmp_path):
  if name == 'file':
    name = str(tmp_path / 'mine.py')
    (tmp_path / 'mine.py').write_text(FORMULA)
  network = mentornet_loading.load(mentornet_loading.V_STAR + name)
  features = curriculum.grid()[::1009]
  features = features[features[:, 0] < 20]
  v = network(tf.constant(features))
  assert v.shape.as_list() == [len(features)] and v.dtype == tf.float32
  with tf.Session() as session:
    v = session.run(v)
  np.testing.assert_array_equal(v, curriculum.get(name).v_star(
      *features.astype(np.float64).T).astype(np.float32))
  assert 0 < v.mean()


def test_a_formula_as_a_mentor():
  network = mentornet_loading.load('v_star:mentornet_pd')
  epoch = tf.placeholder(tf.int32, [])
  v = mentor_lib.Mentor(network, epoch, 0.5, burn_in_epoch=10)(
      tf.constant([1.0, 2, 3, 4, 5]))  # Compared with 3 / 2.
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for percent, expected in [(0, [1, 1, 1, 1, 1]), (18, [1, 1, 1, 1, 1]),
                              (19, [1, 0, 0, 0, 0]), (90, [1, 0.5, 0, 0, 0])]:
      np.testing.assert_array_equal(session.run(v, {epoch: percent}), expected)


def test_a_diverged_loss_leaves_the_formula_alone(tmp_path):
  """Training reports the cause; the error of the formula would mislead."""
  (tmp_path / 'mine.py').write_text(FORMULA)
  network = mentornet_loading.load(f'v_star:{tmp_path / "mine.py"}')
  assert np.isnan(_outputs(network, np.full([3, 4], np.nan, np.float32))).all()


def test_a_formula_that_fails_later(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(FORMULA)
  network = mentornet_loading.load(f'v_star:{path}')
  with pytest.raises(tf.errors.UnknownError) as failure:
    _outputs(network, np.array([[25, 0, 0, 99]], np.float32))
  line = mentornet_loading.formula_error(failure.value)
  assert line.startswith(f'{path}: v_star(')
  assert line.endswith('line 4: AssertionError: never seen')
  other = tf.errors.UnknownError(None, None, 'of another kind')
  assert mentornet_loading.formula_error(other) is None


@pytest.mark.parametrize('name,message', [
    ('', 'known are baseline'), ('mentornet_dd', 'known are baseline'),
    ('/nowhere/mine.py', 'cannot be read')])
def test_no_such_formula(name, message):
  path = mentornet_loading.V_STAR + name
  with pytest.raises(UserError,
                     match=f'--trained_mentornet_dir={path}: .*{message}'):
    mentornet_loading.load(path)


def test_md5_is_of_what_is_read(tmp_path):
  nothing = hashlib.md5().hexdigest()
  assert mentornet_loading.md5(mentornet_loading.THRESHOLD) == nothing
  assert mentornet_loading.md5('v_star:focal') == nothing
  formula = tmp_path / 'mine.py'
  seen = {nothing}
  for text in (b'one', b'two'):
    formula.write_bytes(text)
    seen.add(mentornet_loading.md5(f'v_star:{formula}'))
    (tmp_path / 'net.index').write_bytes(text)
    for content in (b'three', b'four'):
      (tmp_path / 'net.data-00000-of-00001').write_bytes(content)
      seen.add(mentornet_loading.md5(str(tmp_path / 'net')))
  assert len(seen) == 1 + 2 + 4
  before = mentornet_loading.md5(str(tmp_path / 'net'))
  (tmp_path / 'net.meta').write_bytes(b'not read')
  assert mentornet_loading.md5(str(tmp_path / 'net')) == before
  (tmp_path / 'mentornet.pb').write_bytes(b'five')
  assert mentornet_loading.md5(str(tmp_path)) == hashlib.md5(b'five').hexdigest()
