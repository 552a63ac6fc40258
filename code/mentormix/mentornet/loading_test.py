"""Loading networks of every form, and what takes their place."""
import hashlib

import numpy as np
import pytest

from mentormix.mentornet import curriculum
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import loading
from mentormix.mentornet import network as network_lib
from mentormix.mentornet import weights as weights_lib
from mentormix.messages import UserError
from mentormix.runtime import tf


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


@pytest.mark.parametrize('form', ['frozen', 'prefix', 'directory', 'moved'])
@pytest.mark.parametrize('sizes', [
    {}, dict(label=(10, 3), epoch=(50, 2), lstm=5, hidden=7)], ids=str)
def test_every_form_of_a_network_loads(sizes, form, random_weights, tmp_path):
  weights, path = random_weights(**sizes), tmp_path
  if form == 'frozen':
    frozen_graph.freeze(weights, str(tmp_path))
  else:
    prefix = tmp_path / 'mentornet.ckpt-7'
    _write_checkpoint(weights, str(prefix))
    if form == 'moved':  # As downloaded: without the list of checkpoints.
      (tmp_path / 'checkpoint').unlink()
    path = prefix if form == 'prefix' else tmp_path
  points = frozen_graph.probe_points()
  np.testing.assert_allclose(
      _outputs(loading.load(str(path)), points),
      _outputs(network_lib.from_weights(weights), points), rtol=1e-5, atol=1e-6)
  assert not tf.global_variables()
  found = loading.weights_of(str(path))
  assert list(found) == [name for name, _ in weights_lib.SHAPES]
  for name, value in weights.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize('listed', [
    '{0}/outside/mentornet.ckpt-7', '../outside/mentornet.ckpt-7',
    'mentornet.ckpt-7'])
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
  for value in loading.weights_of(str(tmp_path / 'inside')).values():
    np.testing.assert_array_equal(value, 1)


@pytest.mark.parametrize('text', [
    'model_checkpoint_path: "mentornet.ckpt-6"', 'junk',
    'model_checkpoint_path: ""'])
def test_a_list_that_names_no_checkpoint(weights, text, tmp_path):
  for step in (5, 7):
    _write_checkpoint(weights, str(tmp_path / f'mentornet.ckpt-{step}'))
  (tmp_path / 'checkpoint').write_text(text)
  with pytest.raises(UserError, match='nor one checkpoint; name a checkpoint'):
    loading.load(str(tmp_path))


def test_directory_without_a_mentornet(tmp_path):
  with pytest.raises(UserError, match='holds neither'):
    loading.load(str(tmp_path))
  (tmp_path / 'file').write_text('')
  for name in ('nowhere', 'file'):
    with pytest.raises(UserError, match='is not a directory'):
      loading.load(str(tmp_path / name))


@pytest.mark.parametrize('path', ['threshold', 'v_star:focal'])
def test_what_is_not_a_network_has_no_weights(path):
  with pytest.raises(UserError, match=f'{path} is not a network'):
    loading.weights_of(path)


def test_weights_without_their_names(tmp_path):
  with tf.Graph().as_default() as graph:
    features = tf.placeholder(tf.float32, [None, 4], name='features')
    tf.sigmoid(features[:, 0], name='weight')
    (tmp_path / frozen_graph.FROZEN_GRAPH).write_bytes(
        graph.as_graph_def().SerializeToString())
  loading.load(str(tmp_path))
  with pytest.raises(UserError, match='does not name its weights'):
    loading.weights_of(str(tmp_path))


def test_threshold_as_a_mentor():
  network = loading.load('threshold', 0.5)
  features = np.zeros([5, 4], np.float32)
  features[:, 0] = [5, 1, 4, 2, 3]
  np.testing.assert_array_equal(_outputs(network, features), [0, 1, 0, 1, 0])


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
  network = loading.load(loading.V_STAR + name)
  features = curriculum.grid()[::1009]
  features = features[features[:, 0] < 20]
  v = network(tf.constant(features))
  assert v.shape.as_list() == [len(features)] and v.dtype == tf.float32
  with tf.Session() as session:
    v = session.run(v)
  np.testing.assert_array_equal(v, curriculum.get(name).v_star(
      *features.astype(np.float64).T).astype(np.float32))
  assert 0 < v.mean()


def test_a_diverged_loss_leaves_the_formula_alone(tmp_path):
  """Training reports the cause; the error of the formula would mislead."""
  (tmp_path / 'mine.py').write_text(FORMULA)
  network = loading.load(f'v_star:{tmp_path / "mine.py"}')
  assert np.isnan(_outputs(network, np.full([3, 4], np.nan, np.float32))).all()


def test_a_formula_that_fails_later(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(FORMULA)
  network = loading.load(f'v_star:{path}')
  with pytest.raises(tf.errors.UnknownError) as failure:
    _outputs(network, np.array([[25, 0, 0, 99]], np.float32))
  line = loading.formula_error(failure.value)
  assert line.startswith(f'{path}: v_star(')
  assert line.endswith('line 4: AssertionError: never seen')
  other = tf.errors.UnknownError(None, None, 'of another kind')
  assert loading.formula_error(other) is None


@pytest.mark.parametrize('name,message', [
    ('', 'known are baseline'), ('mentornet_dd', 'known are baseline'),
    ('/nowhere/mine.py', 'is not a file')])
def test_no_such_formula(name, message):
  path = loading.V_STAR + name
  with pytest.raises(UserError,
                     match=f'--trained_mentornet_dir={path}: .*{message}'):
    loading.load(path)


def test_md5_is_of_what_is_read(tmp_path):
  nothing = hashlib.md5().hexdigest()
  assert loading.md5(loading.THRESHOLD) == nothing
  assert loading.md5('v_star:focal') == nothing
  formula = tmp_path / 'mine.py'
  seen = {nothing}
  for text in (b'one', b'two'):
    formula.write_bytes(text)
    seen.add(loading.md5(f'v_star:{formula}'))
    (tmp_path / 'net.index').write_bytes(text)
    for content in (b'three', b'four'):
      (tmp_path / 'net.data-00000-of-00001').write_bytes(content)
      seen.add(loading.md5(str(tmp_path / 'net')))
  assert len(seen) == 1 + 2 + 4
  before = loading.md5(str(tmp_path / 'net'))
  (tmp_path / 'net.meta').write_bytes(b'not read')
  assert loading.md5(str(tmp_path / 'net')) == before
  (tmp_path / 'mentornet.pb').write_bytes(b'five')
  assert loading.md5(str(tmp_path)) == hashlib.md5(b'five').hexdigest()
