"""The commands as they are typed: in processes of their own, on real files."""
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from mentormix import datasets
from mentormix import mentornet
from mentormix import results as results_lib
from mentormix import runtime
from mentormix import testing
from mentormix.runtime import tf

CODE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(CODE)
MENTOR = os.path.join(ROOT, 'mentornet_models', 'mentornet_pd')
OTHER_PYTHON = os.environ.get('MENTORMIX_OTHER_PYTHON')


def _start(script, *args, **kwargs):
  python = kwargs.pop('python', sys.executable)
  return subprocess.Popen(
      [python, os.path.join(CODE, script)] + list(args),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      preexec_fn=_default_signals, **kwargs)


def _default_signals():
  """The tests may run in the background, where some are ignored."""
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


def _finish(process):
  """(exit code, stdout, stderr) of a command."""
  try:
    out, err = process.communicate(timeout=300)
  finally:
    process.kill()
  return process.returncode, out, err


def _run(script, *args, **kwargs):
  return _finish(_start(script, *args, **kwargs))


def _flags(**kwargs):
  return ['--%s=%s' % item for item in sorted(kwargs.items())]


def _train(**kwargs):
  settings = dict(
      dataset_name='digits', studentnet='resnet8_thin', batch_size=16,
      trained_mentornet_dir=MENTOR, max_number_of_steps=3, num_readers=1,
      num_preprocessing_threads=1, device_id='')
  settings.update(kwargs)
  return _flags(**settings)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  """Directory with 0.4 and val, as prepare_data makes them."""
  directory = str(tmp_path_factory.mktemp('digits'))
  code, out, err = _run(
      'prepare_data.py', *_flags(dataset_name='digits', noise_levels='0.4',
                                 output_dir=directory))
  assert code == 0, err
  assert '0.4001 realised' in out
  return directory


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
  """The --train_log_dir of a run of three steps."""
  directory = str(tmp_path_factory.mktemp('run') / 'train')
  code, out, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=directory))
  assert code == 0, err
  assert not err
  assert 'step 1/3' in out and 'trained to step 3' in out
  return directory


def test_train_then_evaluate(digits, trained, tmp_path):
  code, out, err = _run('cifar_eval.py', *_flags(
      data_dir=digits + '/val', checkpoint_dir=trained,
      eval_dir=tmp_path / 'eval', device_id=''))
  assert code == 0, err
  assert not err  # Quiet: no banner, no deprecation.
  results = results_lib.read(str(tmp_path / 'eval' / 'results.csv'))
  assert [r.step for r in results] == [0, 3]
  assert all(r.count == 400 for r in results)
  assert 'last %.2f%% at step 3' % (100 * results[-1].top1) in out


def test_training_writes_its_settings_and_summaries(trained):
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


def test_checkpoint_holds_no_mentornet(trained):
  names = tf.train.load_checkpoint(trained).get_variable_to_shape_map()
  assert 'mentor/loss_average' in names
  assert not any('embedding' in n or 'lstm' in n for n in names)


def test_every_state_moves_once_per_step(trained):
  """With the hooks that write summaries and checkpoints beside it."""
  reader = tf.train.load_checkpoint(trained)
  steps = [n for n in reader.get_variable_to_shape_map()
           if n.endswith('local_step')]
  assert len(steps) == 7
  assert all(reader.get_tensor(name) == 3 for name in steps)


def test_a_finished_run_says_so(digits, trained):
  code, out, _ = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=trained))
  assert code == 0
  assert 'is already at step 3 of 3' in out


def test_the_seed_fixes_a_run(digits, trained, tmp_path):
  """Initial weights, order, augmentation, mixing."""
  once = testing.weights(trained)
  for name, seed in (('again', 0), ('other', 1)):
    code, _, err = _run('cifar_train_mentormix.py', *_train(
        data_dir=digits + '/0.4', train_log_dir=tmp_path / name, seed=seed))
    assert code == 0, err
  testing.assert_same_run(testing.weights(tmp_path / 'again'), once)
  kernel = 'ResNet8/logit/DW'
  other = testing.weights(tmp_path / 'other')
  assert np.abs(other[kernel] - once[kernel]).max() > 0.01


def test_mixed_precision(digits, tmp_path):
  code, out, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path, precision='mixed'))
  if runtime.IS_1_15:
    assert code == 2 and '--precision=mixed on TensorFlow 1.15' in err
    assert len(err.splitlines()) == 1
    return
  assert code == 0, err
  assert 'in mixed precision' in out and 'trained to step 3' in out
  reader = tf.train.load_checkpoint(str(tmp_path))
  types = set(reader.get_variable_to_dtype_map().values())
  assert types == {tf.float32, tf.int64}
  code, _, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path))
  assert code == 2 and '--precision is mixed there, float32 here' in err


def test_xla_compiles_the_step(digits, tmp_path):
  code, out, err = _run('cifar_train_mentormix.py', '--xla', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path), env=dict(
          os.environ, TF_CPP_MIN_LOG_LEVEL='0'))
  assert code == 0, err
  assert 'trained to step 3' in out
  assert 'Compiled cluster using XLA' in err


def test_a_run_goes_on(digits, tmp_path):
  args = dict(data_dir=digits + '/0.4', train_log_dir=tmp_path,
              method='cross_entropy')
  assert _run('cifar_train_mentormix.py', *_train(**args))[0] == 0
  average = 'ResNet8/logit/biases/ExponentialMovingAverage'
  before = tf.train.load_variable(str(tmp_path), average)
  args['max_number_of_steps'] = 5
  code, out, err = _run('cifar_train_mentormix.py', *_train(**args))
  assert code == 0, err
  assert 'from step 3' in out and 'step 4/5' in out
  assert tf.train.load_variable(str(tmp_path), 'global_step') == 5
  assert np.abs(tf.train.load_variable(str(tmp_path), average)
                - before).max() > 0
  code, _, err = _run('cifar_train_mentormix.py',
                      *_train(studentnet='resnet14_thin', **args))
  assert code == 2 and '--studentnet is resnet8_thin there' in err
  (tmp_path / 'checkpoint').unlink()  # TensorFlow alone would start anew.
  args['max_number_of_steps'] = 6
  code, out, _ = _run('cifar_train_mentormix.py', *_train(**args))
  assert code == 0 and 'from step 5' in out
  assert 'checkpoint was missing or damaged; it has been rewritten' in out
  (tmp_path / 'config.json').unlink()
  _one_line(*_run('cifar_train_mentormix.py', *_train(**args)),
            message='holds checkpoints but no config.json')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT,
                                    signal.SIGHUP])
def test_a_signal_ends_a_run_with_a_checkpoint(digits, tmp_path, number):
  process = _start('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path, batch_size=4,
      max_number_of_steps=1000000))
  first = [process.stdout.readline() for _ in range(2)]
  assert 'step 1/1000000' in first[1], first
  if number == signal.SIGHUP:  # And what else can happen to a running one.
    process.send_signal(signal.SIGUSR1)
    saved = process.stdout.readline()
    assert re.search(r'SIGUSR1: checkpoint of step [1-9]\d* saved', saved)
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith(
        '-' + saved.split()[-2])
    code, _, err = _run('cifar_train_mentormix.py', *_train(
        data_dir=digits + '/0.4', train_log_dir=tmp_path))
    assert code == 2 and 'is in use by process %d on ' % process.pid in err
  process.send_signal(number)
  code, out, err = _finish(process)
  assert code == 128 + number, err
  assert 'stopped by %s' % signal.Signals(number).name in out
  step = tf.train.load_variable(str(tmp_path), 'global_step')
  assert step >= 1 and 'at step %d, checkpoint saved' % step in out


@pytest.mark.parametrize('settings', [
    dict(), dict(mixup_alpha=0, save_summaries_secs=1),
    dict(method='cross_entropy', save_interval_secs=1)])
def test_a_loss_that_is_no_number(digits, tmp_path, settings):
  code, _, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path, learning_rate=1e38,
      max_number_of_steps=50, **settings))
  assert code == 1
  assert err.count('\n') == 1 and 'lower --learning_rate' in err
  assert re.search(r'at step \d+ the (loss|sum of squared weights) is', err)
  weights = tf.train.load_variable(str(tmp_path), 'ResNet8/logit/DW')
  assert np.isfinite(weights).all()  # The checkpoint is from before.


@pytest.mark.parametrize('mentor', ['threshold', 'checkpoint'])
def test_other_mentornets(digits, tmp_path, mentor):
  if mentor == 'checkpoint':  # In the published naming.
    golden = testing.golden()
    with tf.Graph().as_default(), tf.Session() as session:
      for name, _ in mentornet.SHAPES:
        tf.get_variable(
            name, initializer=tf.constant(golden['mn/random/' + name]))
      session.run(tf.global_variables_initializer())
      mentor = tf.train.Saver().save(session, str(tmp_path / 'mentor.ckpt'))
  code, _, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path / 'train',
      trained_mentornet_dir=mentor, max_number_of_steps=1))
  assert code == 0, err


def test_from_a_trace_to_a_data_driven_mentornet(digits, tmp_path):
  """Killed in between: no row comes twice."""
  trace = tmp_path / 'losses.csv'
  args = _train(data_dir=digits + '/0.4', train_log_dir=tmp_path / 'train',
                batch_size=100, max_number_of_steps=20, loss_csv_file=trace)
  process = _start('cifar_train_mentormix.py', *args)
  while 'step 1/20' not in process.stdout.readline():
    assert process.poll() is None
  process.send_signal(signal.SIGUSR1)
  assert 'SIGUSR1: checkpoint of step' in process.stdout.readline()
  process.kill()
  _finish(process)
  code, out, err = _run('cifar_train_mentormix.py', *args)
  assert code == 0, err
  assert 'from step' in out
  rows = [line.split(',') for line in trace.read_text().splitlines()]
  assert len(rows) == 1 + 20 * 100
  assert [row[1] for row in rows[1::100]] == [str(5 * k) for k in range(20)]
  with open(os.path.join(digits, '0.4', 'labels.csv')) as f:
    labels = {row['source_id']: [row['label'], row['clean_label']]
              for row in csv.DictReader(f)}
  assert all(labels[row[0]] == row[2:4] for row in rows[1:])
  code, out, err = _run(
      'train_mentornet.py', '--curriculum=%s' % trace, '--seed=1',
      '--max_number_of_steps=300', '--output_dir=%s' % (tmp_path / 'mentor'))
  assert code == 0, err
  code, _, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path / 'with',
      trained_mentornet_dir=tmp_path / 'mentor', max_number_of_steps=1))
  assert code == 0, err
  _one_line(*_run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path / 'other',
      loss_csv_file=trace)), message='losses.csv is there already')
  # Where the clean labels are not known, there is nothing to learn.
  clean = datasets.CLEAN_LABEL
  (tmp_path / 'unknown').mkdir()
  with tf.python_io.TFRecordWriter(
      str(tmp_path / 'unknown' / 'digits_train-0')) as writer:
    path = os.path.join(digits, '0.4', 'digits_train-00000-of-00010')
    for record in tf.python_io.tf_record_iterator(path):
      example = tf.train.Example.FromString(record)
      del example.features.feature[clean]
      writer.write(example.SerializeToString())
  _one_line(*_run('cifar_train_mentormix.py', *_train(
      data_dir=tmp_path / 'unknown', train_log_dir=tmp_path / 'other',
      loss_csv_file=tmp_path / 'new.csv')), message='are not known')
  assert not (tmp_path / 'new.csv').exists()


@pytest.mark.parametrize('method', ['mixup', 'mentornet'])
def test_other_methods(digits, tmp_path, method):
  code, out, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=tmp_path, method=method,
      trained_mentornet_dir='threshold' if method == 'mentornet' else '',
      max_number_of_steps=2))
  assert code == 0, err
  assert '%s, resnet8_thin' % method in out and 'trained to step 2' in out
  names = tf.train.load_checkpoint(str(tmp_path)).get_variable_to_shape_map()
  assert ('mentor/loss_average' in names) == (method == 'mentornet')
  with open(os.path.join(digits, '0.4', 'noise.json')) as f:
    facts = json.load(f)
  assert json.loads((tmp_path / 'noise.json').read_text()) == facts


def test_a_preset_fills_in_what_is_not_said(digits, tmp_path):
  args = ['--preset=cpu', '--max_number_of_steps=1', '--batch_size=8',
          '--data_dir=%s/0.4' % digits, '--method=mixup', '--device_id=']
  code, out, err = _run('cifar_train_mentormix.py', *(
      args + ['--train_log_dir=%s' % (tmp_path / 'run')]))
  assert code == 0, err
  assert ('--preset=cpu, digits at noise 0.4: --dataset_name=digits '
          '--mixup_alpha=1.0 ' in out)
  with open(str(tmp_path / 'run' / 'config.json')) as f:
    config = json.load(f)
  assert (config['batch_size'], config['studentnet']) == (8, 'resnet14_thin')
  _one_line(*_run('cifar_train_mentormix.py', *(
      args + ['--preset=published', '--train_log_dir=%s' % (tmp_path / 'b')])),
            message='--preset=published has nothing for digits at noise 0.4')


@pytest.mark.skipif(not OTHER_PYTHON, reason='this machine has one runtime')
def test_a_checkpoint_evaluates_alike_on_the_other_runtime(digits, tmp_path):
  """Trained here, evaluated here and there: the same figures."""
  train = str(tmp_path / 'train')
  assert _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=train, batch_size=64,
      max_number_of_steps=30))[0] == 0
  rows = []
  for name, python in (('here', sys.executable), ('there', OTHER_PYTHON)):
    code, out, err = _run('cifar_eval.py', '--once', *_flags(
        data_dir=digits + '/val', checkpoint_dir=train,
        eval_dir=tmp_path / name, device_id=''), python=python)
    assert code == 0, err
    rows.append(results_lib.read(
        str(tmp_path / name / 'results.csv'))[-1])
  here, there = rows
  assert here.step == there.step == 30
  assert (here.top1, here.top5) == (there.top1, there.top5)
  assert abs(here.loss - there.loss) < 1e-4
  # And the run goes on there.
  code, out, err = _run('cifar_train_mentormix.py', *_train(
      data_dir=digits + '/0.4', train_log_dir=train, batch_size=64,
      max_number_of_steps=31), python=OTHER_PYTHON)
  assert code == 0, err
  assert 'from step 30' in out


def _paper_commands():
  """The two commands of the paper, as the README has them."""
  with open(os.path.join(ROOT, 'README.md')) as f:
    text = f.read()
  blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
  block, = [b for b in blocks if 'cifar100_models/resnet32' in b]
  return block


def test_the_commands_of_the_paper(tmp_path):
  """As typed, but for the number of steps, on CIFAR-100-shaped data."""
  testing.write_cifar_archive(
      str(tmp_path / 'cifar-100-python.tar.gz'), 'cifar100',
      images_per_batch=100)
  for name in ('code', 'mentornet_models'):
    os.symlink(os.path.join(ROOT, name), str(tmp_path / name))
  python = os.path.dirname(sys.executable)
  env = dict(os.environ, PATH=python + os.pathsep + os.environ['PATH'])
  script = _paper_commands()
  assert script.count('--max_number_of_steps=200000') == 1
  script = script.replace('--max_number_of_steps=200000',
                          '--max_number_of_steps=1 --save_interval_secs=1')
  # The evaluator looks every ten minutes; here the training is done first.
  for log in ('> train.txt', '> eval.txt'):
    assert script.count(log + ' &') == 1
    script = script.replace(log + ' &', log)
  prepare = ('python code/prepare_data.py --dataset_name=cifar100 '
             '--archive=cifar-100-python.tar.gz --noise_levels=0.4\n')
  process = subprocess.run(
      ['bash', '-ec', prepare + script], cwd=str(tmp_path), env=env,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      timeout=500)
  assert process.returncode == 0, process.stderr
  run = tmp_path / 'cifar100_models' / 'resnet32' / '0.4' / 'mentormix_p05_a8'
  assert 'trained to step 1' in (tmp_path / 'train.txt').read_text()
  results = results_lib.read(str(run / 'eval_val' / 'results.csv'))
  assert [(r.step, r.count) for r in results] == [(0, 100), (1, 100)]


def _one_line(code, out, err, message):
  assert code == 2, (code, out, err)
  assert 'Traceback' not in err
  assert err.count('\n') == 1, err
  assert message in err, err


@pytest.mark.parametrize('flags,message', [
    (['--loss_p_precentile=0.5'], 'Did you mean: loss_p_percentile'),
    (['--batch_size=0'], '--batch_size=0 must be at least 1'),
    (['--batch_size=many'], '--batch_size=many'),
    (['--loss_p_percentile=1.5'], '--loss_p_percentile=1.5 must be between'),
    (['--mixup_alpha=-1'], '--mixup_alpha=-1.0 must be at least 0'),
    (['--burn_in_epoch=101'], '--burn_in_epoch=101 must be between 0 and 100'),
    (['--task=1'], '--job_name= must be given'),
    (['--method=magic'], '--method=magic must be one of'),
    (['--trained_mentornet_dir='], '--trained_mentornet_dir= must be given'),
    (['--method=mentornet', '--trained_mentornet_dir='],
     '--trained_mentornet_dir= must be given'),
    (['--preset=best'], '--preset=best: value should be one of'),
    (['--loss_csv_file=x.csv', '--method=mixup'],
     '--loss_csv_file=x.csv: --method=mixup only has losses of mixed'),
    (['--loss_csv_file=x.txt'], '--loss_csv_file=x.txt must end in .csv'),
    (['--loss_csv_file=/proc/nowhere/x.csv'], '--loss_csv_file=/proc/nowhere'),
    (['--train_log_dir=/proc/nowhere'], '--train_log_dir=/proc/nowhere'),
    (['stray'], "unexpected argument 'stray'"),
])
def test_bad_flags_of_training(tmp_path, flags, message):
  args = _train(data_dir=tmp_path, train_log_dir=tmp_path / 'train')
  _one_line(*_run('cifar_train_mentormix.py', *(args + flags)),
            message=message)
  assert not (tmp_path / 'train' / 'config.json').exists()


@pytest.mark.parametrize('settings,message', [
    (dict(data_dir='/nowhere/data'), '--data_dir=/nowhere/data is not a'),
    (dict(dataset_name='cifar100'), 'has no file cifar100_train-*'),
    (dict(dataset_name='mnist'), '--dataset_name=mnist is unknown'),
    (dict(studentnet='resnet33'), '--studentnet=resnet33 is unknown'),
    (dict(trained_mentornet_dir='/nowhere/mentor'), 'does not exist'),
    (dict(trained_mentornet_dir=CODE), 'holds neither mentornet.pb nor a'),
    (dict(example_dropout_rates='0.5,50'), 'do not sum to 100'),
])
def test_bad_inputs_of_training(digits, tmp_path, settings, message):
  settings = dict(dict(data_dir=digits + '/0.4'), **settings)
  _one_line(*_run('cifar_train_mentormix.py', *_train(
      train_log_dir=tmp_path / 'train', **settings)), message=message)
  assert not (tmp_path / 'train' / 'config.json').exists()


def test_damaged_data(digits, tmp_path):
  data_dir = tmp_path / 'data'
  shutil.copytree(digits + '/0.4', str(data_dir))
  name = sorted(os.listdir(str(data_dir)))[0]
  assert name.startswith('digits_train-')
  testing.replace_record(data_dir / name, 1, b'bad')
  train = lambda *args: _run('cifar_train_mentormix.py', *_train(
      data_dir=data_dir, train_log_dir=tmp_path / 'train'), *args)
  _one_line(*train(), message=name + ': record 1 is not a tf.Example')
  code, out, _ = train('--max_bad_records=1')
  assert code == 0, out
  assert name + ': record 1 is' in out
  os.truncate(str(data_dir / name), 5000)
  _one_line(*train('--max_bad_records=1'),
            message=name + ': record 2 cannot be read')
  (data_dir / name).unlink()
  _one_line(*train('--max_bad_records=1'), message=name)


@pytest.mark.parametrize('settings,message', [
    (dict(batch_size=0), '--batch_size=0 must be at least 1'),
    (dict(data_dir='/nowhere'), '--data_dir=/nowhere is not a directory'),
    (dict(studentnet='resnet32'), '--studentnet=resnet32, but'),
    (dict(dataset_name='cifar10'), '--dataset_name=cifar10, but'),
    (dict(split_name='train'), 'has no file digits_train-*'),
    (dict(checkpoint_dir='/nowhere'), 'holds no checkpoint'),
    (dict(eval_dir='/proc/nowhere'), '--eval_dir=/proc/nowhere cannot be'),
])
def test_bad_inputs_of_evaluation(digits, trained, tmp_path, settings, message):
  flags = dict(data_dir=digits + '/val', checkpoint_dir=trained,
               eval_dir=tmp_path, device_id='')
  flags.update(settings)
  _one_line(*_run('cifar_eval.py', '--once', *_flags(**flags)),
            message=message)
