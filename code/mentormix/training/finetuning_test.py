"""Starting with a checkpoint: what is loaded, what is refused, and when."""
import os

import cifar_eval
import numpy as np
import pytest

from mentormix import checkpoints
from mentormix import students
from mentormix import testing
from mentormix.data import datasets
from mentormix.data import splits
from mentormix.evaluation import results as results_lib
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.students import fast
from mentormix.training import finetuning
from mentormix.training.step_test import CONFIG

HEAD = 'ResNet8/logit'
V1, V2 = tf.train.SaverDef.V1, tf.train.SaverDef.V2
AVERAGE, MOMENTUM = '/ExponentialMovingAverage', '/Momentum'


def _save(directory, version=V2, classes=10, name='resnet8_thin', left=()):
  """Saves a pretrained student; returns (path, name -> value)."""
  rng = np.random.RandomState(5)
  with tf.Graph().as_default(), tf.Session() as session:
    students.get(name)(tf.zeros([2, 32, 32, 3]), classes, is_training=False)
    saved = [v for v in tf.global_variables() if v.op.name not in left]
    values = {v.op.name: rng.uniform(.1, .3, v.shape.as_list()).astype(
        np.float32) for v in saved}
    session.run([v.initializer for v in saved], {  # All at once: faster.
        v.initializer.inputs[1]: values[v.op.name] for v in saved})
    path = tf.train.Saver(saved, write_version=version).save(
        session, str(directory / 'pretrained.ckpt'))
  return path, values


def _start(directory):
  """The variables of the checkpoint of step 0."""
  reader = tf.train.load_checkpoint(str(directory / 'model.ckpt-0'))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def _assert_loaded(start, values):
  for name, value in values.items():
    np.testing.assert_array_equal(start[name], value, name)
    if name + MOMENTUM in start:
      assert not start[name + MOMENTUM].any()
      np.testing.assert_array_equal(start[name + AVERAGE], value)


@pytest.mark.parametrize('version,named', [
    (V2, 'prefix'), (V2, 'index'), (V2, 'directory'), (V1, 'file'),
    (V1, 'directory'), (V1, 'directory without list')])
def test_a_new_run_starts_with_the_checkpoint(train, digits, tmp_path, version,
                                              named):
  """Then it trains, and its averages can be evaluated."""
  path, values = _save(tmp_path, version)
  assert (path + '.index' in map(str, tmp_path.iterdir())) == (version == V2)
  if named == 'directory without list':
    (tmp_path / 'checkpoint').unlink()
  run = tmp_path / 'run'
  code, out, err = train(
      train_log_dir=run, max_number_of_steps=2, learning_rate=0.001,
      method='cross_entropy', checkpoint_path={'index': path + '.index'}.get(
          named, tmp_path if 'directory' in named else path))
  assert code == 0, err
  assert f'starting with {len(values)} variables of {path}; initial values: ' \
      'none' in out
  start, end = _start(run), testing.weights(run)
  _assert_loaded(start, values)
  assert len([n for n in start if n.endswith(MOMENTUM)]) == 23
  assert all((end[name] != value).any() for name, value in values.items())
  code, out, err = testing.run_command(cifar_eval, *testing.to_flags(
      data_dir=digits + '/val', device_id='', checkpoint_dir=run,
      eval_dir=tmp_path / 'eval'))
  assert code == 0, err
  results = results_lib.read(str(tmp_path / 'eval' / 'results.csv'))
  assert [r.step for r in results] == [0, 2]


def test_a_student_starts_with_what_follows_from_the_images(train, digits,
                                                            tmp_path):
  """The average too; a checkpoint comes before it."""
  name, biases = 'Fast/Whitening/weights', 'Fast/Whitening/biases'
  run = dict(studentnet='fast', method='cross_entropy', max_number_of_steps=1)
  assert train(train_log_dir=tmp_path / 'one', **run).code == 0
  start = _start(tmp_path / 'one')
  data = splits.find(datasets.get('digits'), 'train', f'{digits}/0.4', 'inception')
  expected = fast.whitening(data.first_images(2000))
  np.testing.assert_allclose(start[name], expected[name], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(start[biases + AVERAGE], start[biases])
  assert start[biases].any()
  after = testing.weights(tmp_path / 'one')
  np.testing.assert_array_equal(after[name], start[name])  # It is frozen.
  code, out, _ = train(train_log_dir=tmp_path / 'two',
                       checkpoint_path=tmp_path / 'one',
                       **dict(run, seed=1))
  assert code == 0 and 'starting with' in out
  np.testing.assert_array_equal(_start(tmp_path / 'two')[biases],
                                after[biases])


def test_the_moving_mean_moves_on_from_the_loaded_one(train, tmp_path):
  path, values = _save(tmp_path)
  run = tmp_path / 'run'
  assert train(train_log_dir=run, max_number_of_steps=1, learning_rate=1e-9,
               checkpoint_path=path, method='cross_entropy').code == 0
  fresh = tmp_path / 'fresh'
  assert train(train_log_dir=fresh, max_number_of_steps=1, learning_rate=1e-9,
               method='cross_entropy', checkpoint_path=path,
               checkpoint_exclude_scopes='ResNet8/unit_1_0/shared_activation/'
               'init_bn/moving_mean').code == 0
  name = 'ResNet8/unit_1_0/shared_activation/init_bn/moving_mean'
  of_batch = testing.weights(fresh)[name]  # A debiased first move goes there.
  np.testing.assert_allclose(testing.weights(run)[name],
                             0.9 * values[name] + 0.1 * of_batch, rtol=1e-4)


def test_another_head(train, tmp_path):
  path, values = _save(tmp_path, classes=1001)
  run = dict(train_log_dir=tmp_path / 'run', checkpoint_path=path,
             max_number_of_steps=1)
  testing.assert_one_line(
      train(**run), 2, f'--checkpoint_path={path} does not fit',
      'ResNet8/logit/DW is [64, 1001] there, [64, 10] here',
      'ResNet8/logit/biases is [1001] there, [10] here',
      'add --checkpoint_exclude_scopes=ResNet8/logit\n')
  assert not checkpoints.are_there(str(tmp_path / 'run'))
  code, out, err = train(checkpoint_exclude_scopes=HEAD, **run)
  assert code == 0, err
  assert f'initial values: {HEAD}/DW, {HEAD}/biases' in out
  _assert_loaded(_start(tmp_path / 'run'),
                 {n: v for n, v in values.items() if not n.startswith(HEAD)})


def test_missing_variables(train, tmp_path):
  left = 'ResNet8/unit_last/final_bn/beta'
  path, values = _save(tmp_path, left=[left])
  run = dict(train_log_dir=tmp_path / 'run', checkpoint_path=path,
             max_number_of_steps=1)
  testing.assert_one_line(train(**run), 2, f'missing there: {left} [64]',
                          'add --ignore_missing_vars\n')
  code, out, err = train('--ignore_missing_vars', **run)
  assert code == 0, err
  start = _start(tmp_path / 'run')
  _assert_loaded(start, values)
  assert not start[left].any() and not start[left + AVERAGE].any()


@pytest.mark.parametrize('name', ['resnet32_thin', 'resnet14_thin'])
def test_a_checkpoint_of_another_net(train, tmp_path, name):
  path, _ = _save(tmp_path, name=name)
  testing.assert_one_line(
      train('--ignore_missing_vars', checkpoint_path=path,
            train_log_dir=tmp_path / 'run'), 2,
      'is of another net than --studentnet=resnet8_thin: of 37 variables, 0 '
      'fit; ResNet8/init/init_conv/DW [3, 3, 3, 16] here, ResNet')


@pytest.mark.parametrize('name,num_classes', [
    ('resnet_v1_50', 1000),
    pytest.param('resnet_v2_50', 1001, marks=pytest.mark.slow)])
def test_slim_has_a_class_for_the_background_or_not(tmp_path, name,
                                                    num_classes):
  """By default, both load without the head, for any number of classes."""
  path, values = _save(tmp_path, classes=num_classes, name=name)
  config = CONFIG._replace(studentnet=name, checkpoint_path=path)
  head = [f'{name}/logits/biases', f'{name}/logits/weights']
  assert values[head[0]].shape == (num_classes,)
  with tf.Graph().as_default():
    students.get(name)(tf.zeros([2, 32, 32, 3]), 7, is_training=True)
    loaded = finetuning.read(config, finetuning.find(config))
  assert sorted(set(values) - set(loaded)) == head
  for each, value in loaded.items():
    np.testing.assert_array_equal(value, values[each], each)


def test_the_auxiliary_head_of_slim_fits_only_its_image_size(monkeypatch):
  """1001 classes at 107 pixels, from a checkpoint of 1001 classes at 299."""
  monkeypatch.setattr(checkpoints, 'read', lambda path, shapes, what: {
      name: np.zeros(shape[:1], np.float32) for name, shape in shapes.items()})
  shapes = testing.published_inception_resnet_v2()
  source = finetuning.Source('2016.ckpt', shapes)
  config = CONFIG._replace(studentnet='inception_resnet_v2',
                           checkpoint_path=source.path)
  head, auxiliary = 'InceptionResnetV2/Logits', 'InceptionResnetV2/AuxLogits'
  kernel = f'{auxiliary}/Conv2d_2a_5x5'
  with tf.Graph().as_default():
    students.get(config.studentnet)(tf.zeros([2, 107, 107, 3]), 1001, True)
    loaded = finetuning.read(config, source)
    assert set(shapes) - set(loaded) == {
        name for name in shapes if name.startswith((head, auxiliary))}
    with pytest.raises(UserError) as error:
      finetuning.read(config._replace(checkpoint_exclude_scopes=head), source)
    assert (f'{kernel}/weights is [5, 5, 128, 768] there, [1, 1, 128, 768] '
            'here; to start') in str(error.value)
    flag = f' --checkpoint_exclude_scopes={head},{kernel}'
    assert str(error.value).endswith(f'add{flag}')
    loaded = finetuning.read(config._replace(
        checkpoint_exclude_scopes=flag.partition('=')[2]), source)
    assert f'{auxiliary}/Logits/weights' in loaded


@pytest.mark.parametrize('content,words', [
    (None, 'does not exist; give the prefix of a checkpoint'),
    (b'version https://git-lfs.github.com', 'it is a Git LFS pointer'),
    (b'', 'it is an empty file'), (b'\x1f\x8b' + bytes(50), 'a gzip file')])
def test_what_is_not_a_checkpoint(train, tmp_path, content, words):
  path = tmp_path / 'a.ckpt'
  if content is not None:
    path.write_bytes(content)
  testing.assert_one_line(
      train(checkpoint_path=path, train_log_dir=tmp_path / 'run'), 2,
      f'--checkpoint_path={path}', words)


def test_other_bad_checkpoints(train, tmp_path):
  run = dict(train_log_dir=tmp_path / 'run', checkpoint_path=tmp_path)
  testing.assert_one_line(train(**run), 2, 'it is not clear which checkpoint')
  path, values = _save(tmp_path)
  data = path + '.data-00000-of-00001'
  whole = (tmp_path / data).read_bytes()
  os.truncate(data, 1000)
  testing.assert_one_line(train(**run), 2, f'the checkpoint {path} cannot be')
  (tmp_path / data).write_bytes(whole)
  with tf.Graph().as_default(), tf.Session() as session:
    variables = [tf.get_variable(name, initializer=value * np.float32(
        np.nan)) for name, value in values.items()]
    session.run(tf.global_variables_initializer())
    tf.train.Saver(variables).save(session, path)
  testing.assert_one_line(train(**run), 2, 'is not finite')


def test_a_run_that_resumes_is_not_loaded_again(train, tmp_path):
  path, values = _save(tmp_path)
  run = dict(train_log_dir=tmp_path / 'run', learning_rate=0.01,
             method='cross_entropy')
  assert train(max_number_of_steps=1, checkpoint_path=path, **run).code == 0
  os.remove(path + '.index')  # Nobody needs it any more.
  code, out, err = train(max_number_of_steps=2, checkpoint_path=path, **run)
  assert code == 0, err
  assert f'--checkpoint_path={path} is ignored' in out
  assert 'starting with' not in out and 'from step 1' in out
  assert train(max_number_of_steps=3, **run).code == 0
  for name in ('ResNet8/logit/DW', 'ResNet8/logit/DW' + MOMENTUM):
    assert (testing.weights(tmp_path / 'run')[name]
            != values.get(name, 0)).all()


@pytest.mark.slow
def test_a_start_that_was_killed_loads_again(train, tmp_path):
  path, values = _save(tmp_path)
  run = tmp_path / 'run'
  settings = dict(train_log_dir=run, max_number_of_steps=1,
                  checkpoint_path=path)
  assert train(**settings).code == 0
  first = _start(run)
  for file in run.iterdir():  # As if killed before the first checkpoint.
    if file.name not in ('config.json', 'noise.json'):
      file.unlink()
  code, out, _ = train(**settings)
  assert code == 0 and 'starting with' in out
  again = _start(run)
  _assert_loaded(again, values)
  testing.assert_same_run(first, again)
  # Killed after it: its own checkpoint has them already.
  for file in run.glob('model.ckpt-1.*'):
    file.unlink()
  (run / 'checkpoint').unlink()
  code, out, _ = train(**settings)
  assert code == 0 and 'is ignored' in out
  testing.assert_same_run(first, _start(run))


def test_trainable_scopes(train, digits, tmp_path):
  """Others do not change, do not decay, have no average; evaluation knows."""
  run = tmp_path / 'run'
  path, values = _save(tmp_path)
  settings = dict(train_log_dir=run, checkpoint_path=path,
                  trainable_scopes=HEAD + ',ResNet8/unit_last')
  code, _, err = train(max_number_of_steps=2, method='cross_entropy',
                       weight_decay=10, learning_rate=.001, **settings)
  assert code == 0, err
  end = testing.weights(run)
  for name, value in values.items():
    trained = name.startswith((HEAD, 'ResNet8/unit_last'))
    if 'moving' not in name:
      assert (name + AVERAGE in end) == (name + MOMENTUM in end) == trained
    assert (end[name] != value).any() == (trained or 'moving' in name), name
  code, _, err = testing.run_command(cifar_eval, *testing.to_flags(
      data_dir=digits + '/val', device_id='', checkpoint_dir=run,
      eval_dir=tmp_path / 'eval'))
  assert code == 0, err
  testing.assert_one_line(
      train(train_log_dir=run, max_number_of_steps=3, weight_decay=10,
            method='cross_entropy', learning_rate=.001), 2,
      f'--trainable_scopes is {HEAD},ResNet8/unit_last there, here')
  testing.assert_one_line(
      train(train_log_dir=tmp_path / 'x', trainable_scopes='ResNet8/head'), 2,
      'no weight is called ResNet8/head...; there are ResNet8/init/init_conv')


def test_a_student_may_name_its_head(monkeypatch):
  assert finetuning.excluded_scopes(CONFIG) == ()
  monkeypatch.setitem(students.STUDENTS, CONFIG.studentnet, students.get(
      CONFIG.studentnet)._replace(excluded_scopes=('a', 'b/c')))
  assert finetuning.excluded_scopes(CONFIG) == ('a', 'b/c')
  assert finetuning.excluded_scopes(CONFIG._replace(
      checkpoint_exclude_scopes='d, e')) == ('d', 'e')
