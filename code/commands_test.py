"""The commands, from their flags to the files that they write."""
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import cifar_eval
import cifar_train_mentormix
import numpy as np
import prepare_data
import pytest
import train_mentornet

from mentormix import config as config_lib
from mentormix import runtime
from mentormix import testing
from mentormix.data import cifar_archive_test
from mentormix.data import datasets
from mentormix.evaluation import results as results_lib
from mentormix.runtime import tf

ROOT = os.path.dirname(testing.CODE)
TRAIN = os.path.join(testing.CODE, 'cifar_train_mentormix.py')
EVAL = os.path.join(testing.CODE, 'cifar_eval.py')
OTHER_PYTHON = os.environ.get('MENTORMIX_OTHER_PYTHON')


def _evaluate(digits, *args, **settings):
  return testing.run_command(cifar_eval, *args, *testing.to_flags(**dict(
      dict(data_dir=digits + '/val', device_id=''), **settings)))


def test_train_then_evaluate(digits, trained, tmp_path):
  code, out, err = _evaluate(digits, checkpoint_dir=trained,
                             eval_dir=tmp_path / 'eval')
  assert code == 0, err
  results = results_lib.read(str(tmp_path / 'eval' / 'results.csv'))
  assert [r.step for r in results] == [0, 3]
  assert all(r.count == 400 for r in results)
  assert f'last {100 * results[-1].top1:.2f}% at step 3' in out


def test_statistics_recomputed_beside_the_published_ones(digits, trained,
                                                         tmp_path):
  """A row that an evaluation without them has left is completed."""
  path, run = tmp_path / 'results.csv', config_lib.load(trained)
  kept = results_lib.Result(0, 0.125, 0.5, 1.0, 400, run['started'], 0.25)
  results_lib.write(str(path), [
      kept, kept._replace(step=3, top1_recomputed=float('nan'))])
  settings = dict(checkpoint_dir=trained, eval_dir=tmp_path)
  code, out, _ = _evaluate(digits, '--once', '--statistics=recomputed',
                           **settings)
  assert code == 0 and 'with recomputed statistics' in out
  first, last = results_lib.read(str(path))
  assert first == kept and last.top1 != 0.125
  # After so few steps, the moving statistics are far from those of the weights.
  assert 0 < last.top1_recomputed != last.top1
  code, out, _ = _evaluate(digits, '--once', '--test_time_flip', **settings)
  assert code == 0 and 'with mirror images' in out
  *_, flipped = results_lib.read(str(path))
  assert 0 < flipped.top1_flipped and flipped.top1 == last.top1
  testing.assert_one_line(_evaluate(
      digits, '--once', '--statistics=recomputed', '--train_data_dir=/nowhere',
      **dict(settings, eval_dir=tmp_path / 'other')), 2,
                          '--train_data_dir=/nowhere is not a directory')


def test_what_a_run_leaves(trained):
  """Settings, summaries, and a checkpoint where every state moved once a step.

  With the hooks that write summaries and checkpoints beside it.
  """
  with open(os.path.join(trained, 'config.json')) as f:
    config = json.load(f)
  assert config['studentnet'] == 'resnet8_thin'
  assert config['mixup_alpha'] == 8.0
  tags = set()
  for name in os.listdir(trained):
    if 'tfevents' in name:
      for event in tf.train.summary_iterator(os.path.join(trained, name)):
        tags.update(value.tag for value in event.summary.value)
  assert {'loss', 'learning_rate', 'v', 'v/auc', 'v/precision'} <= tags
  values = testing.weights(trained)
  assert 'mentor/loss_average' in values
  assert not any('embedding' in n or 'lstm' in n for n in values)  # Mentor's.
  steps = [n for n in values if n.endswith('local_step')]
  assert len(steps) == 7
  assert all(values[name] == 3 for name in steps)


def test_a_finished_run_says_so(train, trained):
  code, out, _ = train(train_log_dir=trained)
  assert code == 0
  assert 'is already at step 3 of 3' in out


def test_the_seed_fixes_a_run(train, trained, tmp_path):
  """Initial weights, order, augmentation, mixing."""
  once = testing.weights(trained)
  for name, seed in (('again', 0), ('other', 1)):
    code, _, err = train(train_log_dir=tmp_path / name, seed=seed)
    assert code == 0, err
  testing.assert_same_run(testing.weights(tmp_path / 'again'), once)
  kernel = 'ResNet8/logit/DW'
  other = testing.weights(tmp_path / 'other')
  assert np.abs(other[kernel] - once[kernel]).max() > 0.01


def test_mixed_precision(train, tmp_path):
  finished = train(train_log_dir=tmp_path, precision='mixed')
  if runtime.IS_1_15:
    testing.assert_one_line(finished, 2, '--precision=mixed on TensorFlow 1.15')
    return
  code, out, err = finished
  assert code == 0, err
  assert 'in mixed precision' in out and 'trained to step 3' in out
  reader = tf.train.load_checkpoint(str(tmp_path))
  types = set(reader.get_variable_to_dtype_map().values())
  assert types == {tf.float32, tf.int64}
  testing.assert_one_line(train(train_log_dir=tmp_path), 2,
                          '--precision is mixed there, float32 here')


@pytest.mark.slow
def test_xla_compiles_the_step(digits, tmp_path, monkeypatch):
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '0')  # Native code says so.
  code, out, err = testing.run(
      TRAIN, tmp_path, '--xla', *testing.to_flags(**testing.train_settings(
          digits, train_log_dir=tmp_path, batch_size=4,
          max_number_of_steps=1)))
  assert code == 0, err
  assert 'trained to step 1' in out
  assert 'Compiled cluster using XLA' in err


def test_a_run_is_resumed(train, digits, tmp_path):
  args = dict(train_log_dir=tmp_path, method='cross_entropy')
  assert train(**args).code == 0
  average = 'ResNet8/logit/biases/ExponentialMovingAverage'
  before = tf.train.load_variable(str(tmp_path), average)
  args['max_number_of_steps'] = 5
  # The same data by another name.
  code, out, err = train(data_dir=digits + '/./0.4/', **args)
  assert code == 0, err
  events = [event for path in sorted(tmp_path.glob('events.out.tfevents.*'))
            for event in tf.train.summary_iterator(str(path))]
  assert [event.step for event in events if event.session_log.status] == [0, 3]
  assert 'from step 3' in out and 'step 4/5' in out
  assert tf.train.load_variable(str(tmp_path), 'global_step') == 5
  assert np.abs(tf.train.load_variable(str(tmp_path), average)
                - before).max() > 0
  testing.assert_one_line(train(studentnet='resnet14_thin', **args), 2,
                          '--studentnet is resnet8_thin there')
  # A damaged checkpoint costs the steps since the one before it. Without the
  # list of checkpoints, TensorFlow alone would start anew.
  os.truncate(str(tmp_path / 'model.ckpt-5.data-00000-of-00001'), 100)
  (tmp_path / 'checkpoint').unlink()
  started = config_lib.load(str(tmp_path))['started']
  args['max_number_of_steps'] = 6
  code, out, _ = train(**args)
  assert code == 0 and 'from step 3' in out
  assert 'model.ckpt-5 cannot be read' in out
  assert 'checkpoint was missing or damaged; it has been rewritten' in out
  assert testing.weights(tmp_path)['global_step'] == 6
  assert config_lib.load(str(tmp_path))['started'] == started
  assert {path.name for path in tmp_path.glob('damaged.*')} == {
      'damaged.model.ckpt-5.index', 'damaged.model.ckpt-5.data-00000-of-00001'}
  assert not list(tmp_path.glob('*.meta'))
  (tmp_path / 'config.json').unlink()
  testing.assert_one_line(train(**args), 2,
                          'holds checkpoints but no config.json')


@pytest.mark.parametrize('settings', [
    dict(save_summaries_secs=1),
    dict(method='cross_entropy', save_interval_secs=1)])
def test_a_loss_that_is_not_finite(train, tmp_path, settings):
  finished = train(train_log_dir=tmp_path, learning_rate=1e38,
                   max_number_of_steps=50, **settings)
  testing.assert_one_line(finished, 1, 'lower --learning_rate')
  assert re.search(r'at step \d+ the (loss|sum of squared weights) is',
                   finished.err)
  weights = tf.train.load_variable(str(tmp_path), 'ResNet8/logit/DW')
  assert np.isfinite(weights).all()  # The checkpoint is from before.


@pytest.mark.slow
def test_from_a_trace_to_a_data_driven_mentornet(digits, train, tmp_path):
  trace = tmp_path / 'losses.csv'
  code, out, err = train(train_log_dir=tmp_path / 'train', batch_size=20,
                         method='cross_entropy', max_number_of_steps=10,
                         loss_csv_file=trace)
  assert code == 0, err
  rows = [line.split(',') for line in trace.read_text().splitlines()]
  assert len(rows) == 1 + 10 * 20
  assert [row[1] for row in rows[1::20]] == [str(10 * k) for k in range(10)]
  with open(os.path.join(digits, '0.4', 'labels.csv')) as f:
    labels = {row['source_id']: [row['label'], row['clean_label']]
              for row in csv.DictReader(f)}
  assert all(labels[row[0]] == row[2:4] for row in rows[1:])
  code, out, err = testing.run_command(train_mentornet, *testing.to_flags(
      curriculum=trace, seed=1, max_number_of_steps=20, restarts=1,
      output_dir=tmp_path / 'mentor'))
  assert code == 0, err
  code, _, err = train(train_log_dir=tmp_path / 'with', method='mentornet',
                       max_number_of_steps=1,
                       trained_mentornet_dir=tmp_path / 'mentor')
  assert code == 0, err


def test_a_trace_needs_clean_labels(digits, train, tmp_path):
  (tmp_path / 'unknown').mkdir()
  with tf.python_io.TFRecordWriter(
      str(tmp_path / 'unknown' / 'digits_train-0')) as writer:
    path = os.path.join(digits, '0.4', 'digits_train-00000-of-00010')
    for record in tf.python_io.tf_record_iterator(path):
      example = tf.train.Example.FromString(record)
      del example.features.feature[datasets.CLEAN_LABEL]
      writer.write(example.SerializeToString())
  testing.assert_one_line(
      train(data_dir=tmp_path / 'unknown', train_log_dir=tmp_path / 'train',
            loss_csv_file=tmp_path / 'new.csv'), 2, 'are not known')
  assert not (tmp_path / 'new.csv').exists()


@pytest.mark.parametrize('method', ['mixup', 'mentornet'])
def test_other_methods(digits, train, tmp_path, method):
  """Also with a checkpoint in the published naming."""
  code, out, err = train(
      train_log_dir=tmp_path / 'train', method=method, max_number_of_steps=2,
      trained_mentornet_dir=testing.save_published_mentornet(
          tmp_path / 'mentor.ckpt') if method == 'mentornet' else '')
  assert code == 0, err
  assert f'{method}, resnet8_thin' in out and 'trained to step 2' in out
  names = set(testing.weights(tmp_path / 'train'))
  assert ('mentor/loss_average' in names) == (method == 'mentornet')
  with open(os.path.join(digits, '0.4', 'noise.json')) as f:
    facts = json.load(f)
  assert json.loads((tmp_path / 'train' / 'noise.json').read_text()) == facts


def test_a_preset_fills_in_what_is_not_said(digits, tmp_path):
  def run(preset, name):
    return testing.run_command(cifar_train_mentormix, *testing.to_flags(
        preset=preset, max_number_of_steps=1, batch_size=8, method='mixup',
        data_dir=digits + '/0.4', device_id='', train_log_dir=tmp_path / name))

  code, out, err = run('cpu', 'run')
  assert code == 0, err
  assert ('--preset=cpu, digits at noise 0.4: --dataset_name=digits '
          '--mixup_alpha=1.0 ' in out)
  with open(str(tmp_path / 'run' / 'config.json')) as f:
    config = json.load(f)
  assert (config['batch_size'], config['studentnet']) == (8, 'resnet14_thin')
  testing.assert_one_line(
      run('published', 'b'), 2,
      '--preset=published has nothing for digits at noise 0.4')


@pytest.mark.skipif(not OTHER_PYTHON, reason='this machine has one runtime')
def test_a_checkpoint_evaluates_alike_on_the_other_runtime(digits, train,
                                                           tmp_path):
  """Trained here, evaluated here and there: the same figures."""
  settings = dict(train_log_dir=tmp_path / 'train', batch_size=64)
  assert train(max_number_of_steps=30, **settings).code == 0
  rows = []
  for name, python in (('here', sys.executable), ('there', OTHER_PYTHON)):
    code, out, err = testing.run(EVAL, tmp_path, '--once', *testing.to_flags(
        data_dir=digits + '/val', checkpoint_dir=tmp_path / 'train',
        eval_dir=tmp_path / name, device_id=''), python=python)
    assert code == 0, err
    rows.append(results_lib.read(
        str(tmp_path / name / 'results.csv'))[-1])
  here, there = rows
  assert here.step == there.step == 30
  assert (here.top1, here.top5) == (there.top1, there.top5)
  assert abs(here.loss - there.loss) < 1e-4
  # The run is resumed there, too.
  code, out, err = testing.run(TRAIN, tmp_path, *testing.to_flags(
      **testing.train_settings(digits, max_number_of_steps=31, **settings)),
                               python=OTHER_PYTHON)
  assert code == 0, err
  assert 'from step 30' in out


def test_the_commands_of_the_paper(tmp_path):
  """With the flags as typed, but a step and a student that take seconds.

  They are quiet: no banner, no deprecation.
  """
  cifar_archive_test.write_cifar_archive(
      str(tmp_path / 'cifar-100-python.tar.gz'), 'cifar100',
      images_per_batch=100)
  code, _, err = testing.run_command(prepare_data, *testing.to_flags(
      dataset_name='cifar100', archive='cifar-100-python.tar.gz',
      noise_levels='0.4'), cwd=tmp_path)
  assert code == 0, err
  for name in ('code', 'mentornet_models'):
    os.symlink(os.path.join(ROOT, name), str(tmp_path / name))
  python = os.path.dirname(sys.executable)
  env = dict(os.environ, PATH=python + os.pathsep + os.environ['PATH'])
  with open(os.path.join(ROOT, 'README.md')) as f:
    blocks = re.findall(r'```bash\n(.*?)```', f.read(), re.S)
  script, = [b for b in blocks if 'cifar100_models/resnet32' in b]
  for typed, shorter, times in (
      ('--max_number_of_steps=200000',
       '--max_number_of_steps=1 --save_interval_secs=1', 1),
      ('--batch_size=128', '--batch_size=16', 1),
      ('--studentnet=resnet32', '--studentnet=resnet8_thin', 2),
      # The evaluator looks every ten minutes; here training ends first.
      ('> train.txt &', '> train.txt', 1), ('> eval.txt &', '> eval.txt', 1)):
    assert script.count(typed) == times
    script = script.replace(typed, shorter)
  process = subprocess.run(
      ['bash', '-ec', script], cwd=str(tmp_path), env=env,
      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True, timeout=500)
  assert process.returncode == 0 and not process.stderr, process.stderr
  run = tmp_path / 'cifar100_models' / 'resnet32' / '0.4' / 'mentormix_p05_a8'
  assert 'trained to step 1' in (tmp_path / 'train.txt').read_text()
  results = results_lib.read(str(run / 'eval_val' / 'results.csv'))
  assert [(r.step, r.count) for r in results] == [(0, 100), (1, 100)]


@pytest.mark.parametrize('flags,message', [
    (['--batch_size=0'], '--batch_size=0 must be at least 1'),
    (['--burn_in_epoch=101'], '--burn_in_epoch=101 must be at least 0'),
    (['--task=1'], '--job_name= must be given'),
    (['--sync_replicas'], '--sync_replicas needs a cluster: see --worker_'),
    (['--method=magic'], '--method=magic must be one of'),
    (['--method=mentornet', '--trained_mentornet_dir='],
     '--trained_mentornet_dir= must be given'),
    (['--preset=best'], '--preset=best: value should be one of'),
    (['--loss_csv_file=x.csv', '--method=mixup'],
     '--loss_csv_file=x.csv: --method=mixup only has losses of mixed'),
    (['--loss_csv_file=x.txt'], '--loss_csv_file=x.txt must end in .csv'),
    (['--loss_csv_file=/proc/nowhere/x.csv'], '--loss_csv_file=/proc/nowhere'),
    (['--train_log_dir=/proc/nowhere'], '--train_log_dir=/proc/nowhere'),
])
def test_bad_flags_of_training(train, tmp_path, flags, message):
  testing.assert_one_line(
      train(*flags, data_dir=tmp_path, train_log_dir=tmp_path / 'train'), 2,
      message)
  assert not (tmp_path / 'train' / 'config.json').exists()


@pytest.mark.parametrize('settings,message', [
    (dict(data_dir='/nowhere/data'), '--data_dir=/nowhere/data is not a'),
    (dict(dataset_name='cifar100'), 'has no file cifar100_train-*'),
    (dict(dataset_name='mnist'), '--dataset_name=mnist is unknown'),
    (dict(studentnet='resnet33'), '--studentnet=resnet33 is unknown'),
    (dict(trained_mentornet_dir='/nowhere/mentor'), 'does not exist'),
    (dict(trained_mentornet_dir=testing.CODE), 'holds neither mentornet.pb'),
    (dict(example_dropout_rates='0.5,50'), 'percents that sum to 100'),
])
def test_bad_inputs_of_training(train, tmp_path, settings, message):
  testing.assert_one_line(
      train(train_log_dir=tmp_path / 'train', **settings), 2, message)
  assert not (tmp_path / 'train' / 'config.json').exists()


def test_damaged_data(digits, train, tmp_path):
  data_dir = tmp_path / 'data'
  shutil.copytree(digits + '/0.4', str(data_dir))
  name = sorted(os.listdir(str(data_dir)))[0]
  assert name.startswith('digits_train-')
  testing.replace_record(data_dir / name, 1, b'bad')
  settings = dict(data_dir=data_dir, train_log_dir=tmp_path / 'train')
  testing.assert_one_line(train(**settings), 2,
                          name + ': record 1 is not a tf.Example')
  code, out, _ = train('--max_bad_records=1', **settings)
  assert code == 0, out
  assert name + ': record 1 is' in out
  os.truncate(str(data_dir / name), 5000)
  testing.assert_one_line(train('--max_bad_records=1', **settings), 2,
                          name + ': record 2 cannot be read')
  (data_dir / name).unlink()
  testing.assert_one_line(train('--max_bad_records=1', **settings), 2, name)


@pytest.mark.parametrize('settings,message', [
    (dict(batch_size=0), '--batch_size=0 must be at least 1'),
    (dict(studentnet='resnet32'), '--studentnet=resnet32, but'),
    (dict(dataset_name='cifar10'), '--dataset_name=cifar10, but'),
    (dict(split_name='train'), 'has no file digits_train-*'),
    (dict(checkpoint_dir='/nowhere'), 'holds no checkpoint'),
    (dict(eval_dir='/proc/nowhere'), '--eval_dir=/proc/nowhere cannot be'),
])
def test_bad_inputs_of_evaluation(digits, trained, tmp_path, settings, message):
  settings = dict(dict(checkpoint_dir=trained, eval_dir=tmp_path), **settings)
  testing.assert_one_line(_evaluate(digits, '--once', **settings), 2, message)
