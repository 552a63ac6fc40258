"""Evaluation against hand-made weights, checkpoints and result files."""
import os

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import datasets
from mentormix import evaluation
from mentormix import results as results_lib
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf
from mentormix import students
import prepare_data

COUNT = 30  # Image n is of class n % 10; its red level is 20 * class.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('data')
  with tf.python_io.TFRecordWriter(str(directory / 'digits_test-0')) as writer:
    for n in range(COUNT):
      pixels = np.zeros([32, 32, 3], np.uint8)
      pixels[..., 0] = 20 * (n % 10)
      writer.write(datasets.encode_example(
          prepare_data.encode_png(pixels), n % 10, n % 10))
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
  monkeypatch.setitem(students.STUDENTS, 'tiny', _tiny)
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
  result, = evaluation.evaluate(config)
  assert result.step == 10
  assert result.count == COUNT
  assert result.top1 == 1  # With the raw weight it would be 0.
  assert result.top5 == 1
  distance = np.abs(np.arange(10)[:, None] - np.arange(10)[None])
  log_sum = np.log(np.exp(-5.0 * distance).sum(axis=1))
  np.testing.assert_allclose(result.loss, log_sum.mean(), rtol=1e-4)


def test_worst_student_and_top5(config):
  _save(config.checkpoint_dir, [1], average=-1.0)
  result, = evaluation.evaluate(config)
  assert result.top1 == 0
  # Farthest first, a class is never among its own first five.
  assert result.top5 == 0


def test_a_row_per_checkpoint_never_twice(config, capsys):
  _save(config.checkpoint_dir, [5, 10])
  assert [r.step for r in evaluation.evaluate(config)] == [5, 10]
  _save(config.checkpoint_dir, [5, 10, 15])
  assert [r.step for r in evaluation.evaluate(config)] == [5, 10, 15]
  path = os.path.join(config.eval_dir, 'results.csv')
  with open(path) as f:
    lines = f.read().splitlines()
  assert lines[0] == 'step,top1,top5,loss,count,wall_time'
  assert [int(line.split(',')[0]) for line in lines[1:]] == [5, 10, 15]
  assert results_lib.read(path)[2].count == COUNT
  out = capsys.readouterr().out
  assert 'last 100.00% at step 15, peak 100.00% at step 5' in out
  events = [f for f in os.listdir(config.eval_dir) if 'tfevents' in f]
  assert events


def test_summaries_hold_the_results(config):
  _save(config.checkpoint_dir, [10])
  evaluation.evaluate(config)
  found = {}
  for name in os.listdir(config.eval_dir):
    if 'tfevents' in name:
      for event in tf.train.summary_iterator(
          os.path.join(config.eval_dir, name)):
        for value in event.summary.value:
          found[value.tag] = (event.step, value.simple_value)
  assert found['eval/top1'] == (10, 1.0)
  assert set(found) == {'eval/top1', 'eval/top5', 'eval/loss'}


def test_results_go_where_the_flag_says(config, tmp_path):
  _save(config.checkpoint_dir, [10])
  path = str(tmp_path / 'elsewhere.csv')
  evaluation.evaluate(config._replace(output_csv_file=path))
  assert len(results_lib.read(path)) == 1
  assert not os.path.exists(os.path.join(config.eval_dir, 'results.csv'))


def test_it_ends_with_the_training(config):
  """Without --once: the checkpoint of the last step is the end."""
  run = config_lib.TrainConfig(dataset_name='digits', studentnet='tiny',
                               max_number_of_steps=10)
  config_lib.save(run, config.checkpoint_dir)
  _save(config.checkpoint_dir, [5, 10])
  results = evaluation.evaluate(config._replace(
      once=False, dataset_name=None, studentnet=None))
  assert [r.step for r in results] == [5, 10]


def test_checkpoints_that_vanish_are_skipped(config, capsys, monkeypatch):
  _save(config.checkpoint_dir, [5, 10])
  one_pass = evaluation.AveragedStudent.one_pass

  def vanish(self, prefix, fetches):
    if prefix.endswith('-5'):
      for name in os.listdir(config.checkpoint_dir):
        if name.startswith('model.ckpt-5.'):
          os.remove(os.path.join(config.checkpoint_dir, name))
    return one_pass(self, prefix, fetches)

  monkeypatch.setattr(evaluation.AveragedStudent, 'one_pass', vanish)
  assert [r.step for r in evaluation.evaluate(config)] == [10]
  assert 'step 5: the checkpoint is gone' in capsys.readouterr().out


def test_damaged_checkpoint(config):
  _save(config.checkpoint_dir, [5])
  path = os.path.join(config.checkpoint_dir, 'model.ckpt-5.index')
  with open(path, 'r+b') as f:
    f.write(b'damaged')
    f.truncate(20)
  with pytest.raises(RunError, match='model.ckpt-5 cannot be evaluated'):
    evaluation.evaluate(config)


def test_checkpoint_of_another_student(config):
  _save(config.checkpoint_dir, [5])
  with pytest.raises(UserError, match='is not of --studentnet=resnet8_thin.*'
                                      'missing there'):
    evaluation.evaluate(config._replace(studentnet='resnet8_thin'))


def test_no_checkpoint(config):
  with pytest.raises(UserError, match='holds no checkpoint'):
    evaluation.evaluate(config)


def test_checkpoints_of_a_directory_that_was_moved(config, tmp_path):
  _save(config.checkpoint_dir, [5])
  os.rename(config.checkpoint_dir, str(tmp_path / 'moved'))
  result, = evaluation.evaluate(
      config._replace(checkpoint_dir=str(tmp_path / 'moved')))
  assert result.step == 5


def test_damaged_state_file(config):
  _save(config.checkpoint_dir, [5])
  with open(os.path.join(config.checkpoint_dir, 'checkpoint'), 'w'):
    pass
  with pytest.raises(UserError, match='checkpoint is damaged'):
    evaluation.evaluate(config)
