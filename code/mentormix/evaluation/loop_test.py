"""Evaluation against hand-made weights, checkpoints and result files."""
import os
import shutil
import time
import types

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import files
from mentormix import students
from mentormix import testing
from mentormix.evaluation import averaged_student
from mentormix.evaluation import loop as evaluation_loop
from mentormix.evaluation import results as eval_results
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf

COUNT = 30  # Image n is of class n % 10; its red level is 20 * class.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('data')
  labels = np.arange(COUNT) % 10
  images = np.zeros([COUNT, 32, 32, 3], np.uint8)
  images[..., 0] = 20 * labels.reshape(-1, 1, 1)
  testing.write_records(directory / 'digits_test-0', images, labels, labels)
  return str(directory)


def _tiny(images, num_classes, is_training, update_statistics=True):
  """Logits peak at the class whose red level is nearest."""
  del is_training, update_statistics
  scale = tf.get_variable('scale', [], initializer=tf.zeros_initializer())
  level = (images[:, 0, 0, 0] * 127.5 + 127.5) / 20.0  # [B]
  classes = tf.range(num_classes, dtype=tf.float32)
  distance = tf.abs(level[:, tf.newaxis] - classes)
  return -scale * distance  # [B, K]


@pytest.fixture
def config(data_dir, tmp_path, monkeypatch):
  monkeypatch.setitem(students.STUDENTS, 'tiny',
                      students.Student(_tiny))
  for name in ('train', 'eval'):
    (tmp_path / name).mkdir()
  return config_lib.EvalConfig(
      data_dir=data_dir, dataset_name='digits', studentnet='tiny',
      checkpoint_dir=str(tmp_path / 'train'), eval_dir=str(tmp_path / 'eval'),
      batch_size=7, once=True)


def _save(directory, steps, raw=-1.0, average=5.0):
  """Checkpoints whose raw weight is wrong and whose average is right."""
  with tf.Graph().as_default(), tf.Session() as session:
    global_step = tf.train.create_global_step()
    tf.get_variable('scale', [],
                    initializer=tf.constant_initializer(raw))
    tf.get_variable('scale/ExponentialMovingAverage', [],
                    initializer=tf.constant_initializer(average))
    session.run(tf.global_variables_initializer())
    saver = tf.train.Saver(max_to_keep=10)
    for step in steps:
      session.run(global_step.assign(step))
      saver.save(session, os.path.join(directory, 'model.ckpt'), step)


def test_averaged_weights_every_image_once(config):
  _save(config.checkpoint_dir, [10])
  result, = evaluation_loop.evaluate(config)
  assert result.step == 10
  assert result.count == COUNT
  assert result.top1 == 1  # With the raw weight it would be 0.
  assert result.top5 == 1
  distance = np.abs(np.arange(10)[:, None] - np.arange(10)[None])
  log_sum = np.log(np.exp(-5.0 * distance).sum(axis=1))
  np.testing.assert_allclose(result.loss, log_sum.mean(), rtol=1e-4)


def test_a_row_per_checkpoint_never_twice(config, capsys):
  _save(config.checkpoint_dir, [5, 10])
  assert [r.step for r in evaluation_loop.evaluate(config)] == [5, 10]
  _save(config.checkpoint_dir, [5, 10, 15])
  assert [r.step for r in evaluation_loop.evaluate(config)] == [5, 10, 15]
  path = os.path.join(config.eval_dir, 'results.csv')
  with open(path) as f:
    lines = f.read().splitlines()
  assert lines[0] == 'step,top1,top5,loss,count,wall_time'
  assert [int(line.split(',')[0]) for line in lines[1:]] == [5, 10, 15]
  assert eval_results.read(path)[2].count == COUNT
  out = capsys.readouterr().out
  assert 'last 100.00% at step 15, peak 100.00% at step 5' in out
  found = {(event.step, value.tag): value.simple_value
           for name in os.listdir(config.eval_dir) if 'tfevents' in name
           for event in tf.train.summary_iterator(
               os.path.join(config.eval_dir, name))
           for value in event.summary.value}
  assert found[15, 'eval/top1'] == 1
  assert {tag for step, tag in found if step == 15} == {
      'eval/top1', 'eval/top5', 'eval/loss'}


def test_results_go_where_the_flag_says(config, tmp_path):
  _save(config.checkpoint_dir, [10])
  path = str(tmp_path / 'elsewhere.csv')
  evaluation_loop.evaluate(config._replace(output_csv_file=path))
  assert len(eval_results.read(path)) == 1
  assert not os.path.exists(os.path.join(config.eval_dir, 'results.csv'))


def test_it_ends_with_the_training(config):
  """Without --once: the checkpoint of the last step is the end."""
  run = config_lib.TrainConfig(dataset_name='digits', studentnet='tiny',
                               max_number_of_steps=10)
  config_lib.save(run, config.checkpoint_dir)
  _save(config.checkpoint_dir, [5, 10])
  results = evaluation_loop.evaluate(config._replace(
      once=False, dataset_name=None, studentnet=None))
  assert [r.step for r in results] == [5, 10]


def test_checkpoints_that_vanish_are_skipped(config, capsys, monkeypatch):
  _save(config.checkpoint_dir, [5, 10])
  one_pass = averaged_student.AveragedStudent.one_pass

  def vanish(self, prefix, fetches):
    if prefix.endswith('-5'):
      for name in os.listdir(config.checkpoint_dir):
        if name.startswith('model.ckpt-5.'):
          os.remove(os.path.join(config.checkpoint_dir, name))
    return one_pass(self, prefix, fetches)

  monkeypatch.setattr(averaged_student.AveragedStudent, 'one_pass', vanish)
  assert [r.step for r in evaluation_loop.evaluate(config)] == [10]
  assert 'step 5: the checkpoint is gone' in capsys.readouterr().out


def _damage(config, step):
  path = os.path.join(config.checkpoint_dir, f'model.ckpt-{step}.index')
  with open(path, 'r+b') as f:
    f.write(b'damaged')
    f.truncate(20)


def test_damaged_checkpoint(config, capsys):
  """The others are evaluated; then it is an error, until it can be read."""
  _save(config.checkpoint_dir, [5, 10])
  _damage(config, 5)
  path = os.path.join(config.eval_dir, 'results.csv')
  for _ in range(2):
    with pytest.raises(RunError, match='model.ckpt-5 cannot be read: .*; 1 '
                                       'others are in ' + path):
      evaluation_loop.evaluate(config)
    assert [r.step for r in eval_results.read(path)] == [10]
  assert 'step 5: skipped, the checkpoint' in capsys.readouterr().out
  _save(config.checkpoint_dir, [5, 10])
  assert [r.step for r in evaluation_loop.evaluate(config)] == [5, 10]


def _poll(config, monkeypatch, *turns, **clock):
  """Evaluates as it polls; one of `turns` is called instead of each sleep."""
  turns = list(turns)
  monkeypatch.setattr(evaluation_loop, 'time', types.SimpleNamespace(
      time=clock.get('time', time.time), sleep=lambda _: turns.pop(0)()))
  found = evaluation_loop.evaluate(config._replace(once=False))
  assert not turns
  return found


def _begin(config, started, **settings):
  """As training does when it starts."""
  config_lib.save(
      config_lib.TrainConfig(dataset_name='digits', studentnet='tiny',
                             max_number_of_steps=10)._replace(**settings),
      config.checkpoint_dir, started=float(started))


def test_a_new_run_gets_a_new_table(config, monkeypatch, capsys):
  """Although its checkpoints have the steps of the run before."""
  _begin(config, time.time() - 100)
  _save(config.checkpoint_dir, [4, 5], average=-1.0)

  def anew():
    shutil.rmtree(config.checkpoint_dir)
    os.mkdir(config.checkpoint_dir)
    _begin(config, time.time() + 0.2)

  def save():
    while time.time() < config_lib.load(config.checkpoint_dir)['started']:
      pass
    _save(config.checkpoint_dir, [5, 10])

  found = _poll(config, monkeypatch, anew, save)
  assert [(r.step, r.top1) for r in found] == [(5, 1), (10, 1)]
  names = sorted(name for name in os.listdir(config.eval_dir)
                 if name.startswith('results'))
  assert names[1:] == ['results.csv'] and names[0].startswith('results-before-')
  old = eval_results.read(os.path.join(config.eval_dir, names[0]))
  assert [(r.step, r.top1) for r in old] == [(4, 0), (5, 0)]
  assert 'has results of an earlier run; they are in' in capsys.readouterr().out


def test_a_run_that_starts_during_a_pass_is_not_mixed_up(
    config, monkeypatch, capsys):
  _begin(config, time.time() - 100)
  _save(config.checkpoint_dir, [5, 10])
  run = evaluation_loop._Evaluator.run

  def slow_run(self, prefix, step):
    result = run(self, prefix, step)
    _begin(config, time.time() - 50)
    return result

  monkeypatch.setattr(evaluation_loop._Evaluator, 'run', slow_run)
  with pytest.raises(RunError, match='could be read'):
    evaluation_loop.evaluate(config)
  assert 'step 5: skipped, ' in capsys.readouterr().out
  assert not os.path.exists(os.path.join(config.eval_dir, 'results.csv'))


def test_waiting_is_logged_and_ends(config, monkeypatch, capsys):
  """No checkpoint, then one, then no more; nobody trains."""
  clock = [time.time()]
  config = config._replace(timeout=3600, eval_interval_secs=500)

  def wait(seconds):
    def turn():
      clock[0] += seconds
    return turn

  def save():
    _begin(config, 0)
    _save(config.checkpoint_dir, [5])

  with pytest.raises(RunError) as error:
    _poll(config, monkeypatch, wait(300), wait(400), save, *[wait(500)] * 8,
          time=lambda: clock[0])
  assert str(error.value) == (
      'waiting for checkpoints after step 5 of 10 in '
      f'{config.checkpoint_dir}; no process is known to train there; nothing '
      'new for 3600 seconds; resume the training, then run this '
      'command again')
  said = [line[20:] for line in capsys.readouterr().out.splitlines()
          if 'no process' in line]
  assert said[:2] == [
      f'no checkpoint yet in {config.checkpoint_dir}; no process is known to '
      'train there'] * 2
  assert len(said) == 5  # After 0, 700, 1700, 2700, 3700 seconds.
  results = eval_results.read(os.path.join(config.eval_dir, 'results.csv'))
  assert [r.step for r in results] == [5]


def test_it_logs_at_once_that_training_ended(config, monkeypatch, capsys):
  _begin(config, 0)
  _save(config.checkpoint_dir, [5])
  holders = ['process 7 on here since 2020'] * 2 + [None]
  monkeypatch.setattr(files, 'holder', lambda _: holders.pop(0))
  nothing = lambda: None
  _poll(config, monkeypatch, nothing, nothing,
        lambda: _save(config.checkpoint_dir, [5, 10]))
  said = [line for line in capsys.readouterr().out.splitlines()
          if 'waiting for' in line]
  assert len(said) == 2
  assert said[0].endswith('; training: process 7 on here since 2020')
  assert said[1].endswith('; no process is known to train there')


def test_checkpoint_of_another_student(config):
  _save(config.checkpoint_dir, [5])
  with pytest.raises(UserError, match='is not of --studentnet=resnet8_thin.*'
                                      'missing there'):
    evaluation_loop.evaluate(config._replace(studentnet='resnet8_thin'))


def test_no_checkpoint(config):
  with pytest.raises(UserError, match='holds no checkpoint'):
    evaluation_loop.evaluate(config)


@pytest.mark.parametrize('text', [
    None, '', 'junk', 'model_checkpoint_path: "model.ckpt-999999"\n'])
def test_the_list_of_checkpoints_is_damaged_or_gone(config, text):
  _save(config.checkpoint_dir, [5])
  path = os.path.join(config.checkpoint_dir, 'checkpoint')
  os.remove(path)
  if text is not None:
    with open(path, 'w') as f:
      f.write(text)
  assert [r.step for r in evaluation_loop.evaluate(config)] == [5]


@pytest.mark.slow
def test_a_full_disk_loses_no_row(config):
  _save(config.checkpoint_dir, [5])
  evaluation_loop.evaluate(config)
  with testing.small_disk() as disk:
    path = os.path.join(disk, 'results.csv')
    shutil.copy(os.path.join(config.eval_dir, 'results.csv'), path)
    config = config._replace(output_csv_file=path)
    _save(config.checkpoint_dir, [5, 10])
    testing.fill_disk(disk)
    with pytest.raises(RunError, match='No space left.*then run the same '
                                       f'command again; {path} is as before'):
      evaluation_loop.evaluate(config)
    assert [r.step for r in eval_results.read(path)] == [5]
    os.remove(os.path.join(disk, 'filler'))
    assert [r.step for r in evaluation_loop.evaluate(config)] == [5, 10]
    assert os.listdir(disk) == ['results.csv']
    testing.fill_disk(disk)
    with pytest.raises(RunError, match='tfevents.*No space left'):
      evaluation_loop.evaluate(config._replace(eval_dir=disk))


def test_a_run_of_another_student_in_the_same_directory(config, monkeypatch):
  _begin(config, 0)
  _save(config.checkpoint_dir, [5])
  with pytest.raises(UserError, match='holds a run of resnet8_thin on digits '
                                      'now; start this command again'):
    _poll(config._replace(studentnet=None), monkeypatch,
          lambda: _begin(config, 0, studentnet='resnet8_thin'))
