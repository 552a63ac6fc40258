"""The sweep: what it prints, and runs that are stopped, killed and failed."""
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, 'scripts', 'sweep_cifar.sh')
METHODS = ['cross_entropy', 'mixup', 'mentornet', 'mentormix']
TRAINING = ['--', '--studentnet=resnet8_thin', '--batch_size=8',
            '--trained_mentornet_dir=mentornet_models/mentornet_pd',
            '--save_interval_secs=1']


def _start(*args):
  return subprocess.Popen(
      ['bash', SCRIPT] + list(args), stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True, cwd='/',
      start_new_session=True)  # A process group of its own, to be killed.


def _run(*args):
  process = _start(*args)
  try:
    out, _ = process.communicate(timeout=500)
  finally:
    _kill_all(process)
  return process.returncode, out


def _kill_all(process):
  """kill -9 of the sweep and everything that it has started."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
  process.wait()


def _lives(group):
  """Whether a process of the group is left."""
  try:
    os.killpg(group, 0)
  except ProcessLookupError:
    return False
  return True


def _wait_until(condition, seconds=500):
  deadline = time.time() + seconds
  while not condition():
    assert time.time() < deadline
    time.sleep(0.1)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """The --data_root with digits/0.4 and digits/val."""
  directory = tmp_path_factory.mktemp('data')
  subprocess.run(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       '--output_dir=%s' % (directory / 'digits')],
      check=True, stdout=subprocess.PIPE)
  return str(directory)


def _sweep(data, runs, *args):
  return ['--python=' + sys.executable, '--datasets=digits', '--preset=none',
          '--noise_levels=0.4', '--data_root=' + data, '--runs_root=%s' % runs,
          '--eval_interval_secs=1', '--jobs=2'] + list(args)


def _steps(run):
  """The steps in the results.csv of a run."""
  path = os.path.join(str(run), 'eval', 'results.csv')
  if not os.path.exists(path):
    return []
  with open(path) as f:
    return [int(row['step']) for row in csv.DictReader(f) if row['wall_time']]


def test_it_prints_every_command_and_starts_nothing(tmp_path):
  code, out = _run('--datasets=cifar10,cifar100', '--noise_levels=0.2,worse',
                   '--methods=mixup,mentormix', '--seeds=0,1',
                   '--devices=0,3', '--runs_root=%s/a b' % tmp_path,
                   '--python=/my/python', '--', '--mixup_alpha=2')
  assert code == 0
  lines = out.splitlines()
  assert len(lines) == len(set(lines)) == 2 * 2 * 2 * 2
  for k, line in enumerate(lines):
    assert '--device_id=%d ' % [0, 3][k % 2] in line
    assert '--mixup_alpha=2 ' in line and '--preset=published' in line
    assert line.count('nohup env /my/python code/cifar_') == 2
  assert ('--data_dir=data/cifar100/worse --train_log_dir=%s/a\\ b/cifar100/'
          'worse/mentormix/seed1/train --method=mentormix --seed=1'
          % tmp_path) in lines[-1]
  assert not os.listdir(str(tmp_path))


def test_a_printed_line_is_a_command(tmp_path):
  script = tmp_path / 'python'
  script.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS" "$@"\n')
  script.chmod(0o755)
  runs = str(tmp_path / "it's")
  _, out = _run('--noise_levels=0.4', '--methods=mixup', '--jobs=1000',
                '--python=%s' % script, '--runs_root=' + runs)
  subprocess.run(['bash', '-ec', out], check=True, cwd=ROOT)
  log = os.path.join(runs, 'cifar10', '0.4', 'mixup', 'seed0', 'log.txt')
  with open(log) as f:
    lines = sorted(f.read().splitlines())
  assert lines[0].startswith('1 code/cifar_eval.py --data_dir=data/cifar10/val')
  assert lines[1].startswith('1 code/cifar_train_mentormix.py --dataset_name=')
  assert shlex.quote(runs) not in lines[0] and runs in lines[0]


@pytest.mark.parametrize('flags,message', [
    (['--methods=magic'], '--methods=magic is not a list of cross_entropy'),
    (['--methods=mixup,mixup'], 'names one twice'),
    (['--methods='], '--methods= is not'),
    (['--noise_levels=0.4,,0.6'], '--noise_levels=0.4,,0.6 is not a list'),
    (['--noise_levels=../0.4'], 'is not a list of directories'),
    (['--seeds=-1'], '--seeds=-1 is not a list of numbers'),
    (['--jobs=0'], '--jobs=0 is not a number from 1'),
    (['--devices=gpu'], '--devices=gpu is not a list of GPUs'),
    (['--preset=best'], '--preset=best is not published, cpu or none'),
    (['--eval_interval_secs=0'], '--eval_interval_secs=0 is not'),
    (['--method=mixup'], "unknown argument '--method=mixup'"),
    (['--', 'mixup_alpha=2'], "unexpected 'mixup_alpha=2' after --"),
    (['--', '--seed=3'], '--seed=3 after --: the sweep sets that itself'),
    (['--runs_root='], '--runs_root may not be empty'),
    (['--seeds=00,0'], '--seeds=00,0 is not a list of numbers'),
    (['--noise_levels=val'], 'val is the test set'),
    (['--run', '--python=/nowhere/python'], '--python=/nowhere/python is not'),
    (['--run', '--data_root=/nowhere', '--python=' + sys.executable],
     '/nowhere/cifar10/0.2 is not there; make it with code/prepare_data.py'),
])
def test_bad_input_is_one_line(tmp_path, flags, message):
  code, out = _run('--runs_root=%s' % (tmp_path / 'runs'), *flags)
  assert code == 2
  assert out.count('\n') == 1 and message in out
  assert not os.listdir(str(tmp_path))


def test_eight_runs_killed_in_the_middle(data, tmp_path):
  """kill -9 of everything; the same command finishes the set; then a table."""
  args = _sweep(data, tmp_path / 'runs', '--seeds=0,1')
  training = TRAINING + ['--max_number_of_steps=6']
  runs = [tmp_path / 'runs' / 'digits' / '0.4' / method / seed
          for seed in ('seed0', 'seed1') for method in METHODS]
  process = _start(*(args + ['--run'] + training))
  try:
    _wait_until(lambda: _steps(runs[2]))  # The third of eight has begun.
  finally:
    _kill_all(process)
  # A killed process holds its lock until the system has taken it apart.
  _wait_until(lambda: 'running' not in _run(*(args + ['--status']))[1])
  finished = [run for run in runs if 6 in _steps(run)]
  assert 1 <= len(finished) < 8
  stamps = [os.path.getmtime(str(run / 'eval' / 'results.csv'))
            for run in finished]

  code, out = _run(*(args + ['--status']))
  lines = out.splitlines()
  assert code == 0 and len(lines) == 1 + 8
  states = [line.split()[0] for line in lines[1:]]
  assert states.count('finished') == len(finished)
  assert 'running' not in states and states[-1] == 'waiting'

  code, out = _run(*(args + ['--run'] + training))
  assert code == 0, out
  assert out.count('finished before: ') == len(finished)
  assert 'all finished' in out
  for run in runs:
    steps = _steps(run)
    assert steps == sorted(set(steps)) and steps[-1] == 6, run
  assert stamps == [os.path.getmtime(str(run / 'eval' / 'results.csv'))
                    for run in finished]
  code, out = _run(*(args + ['--status']))
  assert [line.split()[:2] for line in out.splitlines()[1:]] == [
      ['finished', '6/6']] * 8

  # What is finished with other settings is not what is asked for now.
  code, out = _run(*(args + ['--methods=mixup', '--seeds=0', '--run'] + training
                     + ['--mixup_alpha=3']))
  assert code == 1 and '--mixup_alpha is 8.0 there, 3.0 here' in out

  subprocess.run(
      [sys.executable, os.path.join(ROOT, 'code', 'report.py'),
       '--runs=%s' % (tmp_path / 'runs'),
       '--output_dir=%s' % (tmp_path / 'report')],
      check=True, stdout=subprocess.PIPE)
  with open(str(tmp_path / 'report' / 'report.csv')) as f:
    rows = list(csv.DictReader(f))
  assert sorted(row['method'] for row in rows) == sorted(METHODS)
  assert [row['runs'] for row in rows] == ['2'] * 4


def test_stopped_by_a_signal_it_leaves_checkpoints_and_no_process(
    data, tmp_path):
  args = _sweep(data, tmp_path, '--methods=mixup,mentormix')
  training = TRAINING + ['--max_number_of_steps=1000000']
  runs = [tmp_path / 'digits' / '0.4' / name / 'seed0'
          for name in ('mixup', 'mentormix')]
  process = _start(*(args + ['--run'] + training))
  try:
    _wait_until(lambda: all(_steps(run) for run in runs))
    code, out = _run(*(args + ['--status']))
    assert [line.split()[0] for line in out.splitlines()[1:]] == ['running'] * 2
    os.kill(process.pid, signal.SIGHUP)  # The terminal closes: it goes on.
    time.sleep(1)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 143
    assert 'goes on from there' in out
    _wait_until(lambda: not _lives(process.pid), 60)
  finally:
    _kill_all(process)
  for run in runs:
    log = (run / 'log.txt').read_text()
    assert 'stopped by SIGTERM at step' in log and 'checkpoint saved' in log
  code, out = _run(*(args + ['--status']))
  assert [line.split()[0] for line in out.splitlines()[1:]] == ['stopped'] * 2


def test_a_run_that_fails_is_named_and_the_others_go_on(data, tmp_path):
  args = _sweep(data, tmp_path, '--methods=cross_entropy,mentornet')
  code, out = _run(*(args + ['--run'] + TRAINING + [
      '--max_number_of_steps=1', '--trained_mentornet_dir=/nowhere']))
  assert code == 1
  assert '1 failed' in out and 'No such file' not in out
  assert '--trained_mentornet_dir=/nowhere does not exist' in out
  code, out = _run(*(args + ['--status']))
  assert [line.split()[0] for line in out.splitlines()[1:]] == [
      'finished', 'failed']
  log = tmp_path / 'digits' / '0.4' / 'mentornet' / 'seed0' / 'log.txt'
  last = log.read_text().splitlines()[-1]
  assert last.startswith('sweep: error: exit code 2: ')
  assert ('cifar_train_mentormix.py: error: --trained_mentornet_dir=/nowhere'
          in last)


def test_an_evaluation_that_fails_ends_the_training(data, tmp_path):
  broken = tmp_path / 'data' / 'digits'
  broken.mkdir(parents=True)
  os.symlink(os.path.join(data, 'digits', '0.4'), str(broken / '0.4'))
  (broken / 'val').mkdir()
  args = _sweep(str(tmp_path / 'data'), tmp_path / 'runs', '--methods=mixup')
  code, out = _run(*(args + ['--run'] + TRAINING + [
      '--max_number_of_steps=1000000']))
  assert code == 1
  assert 'has no file digits_test-*' in out


def test_it_stops_while_it_waits_for_another(data, tmp_path):
  run = tmp_path / 'digits' / '0.4' / 'mixup' / 'seed0'
  run.mkdir(parents=True)
  holder = subprocess.Popen(['flock', str(run / '.lock'), 'sleep', '100'],
                            start_new_session=True)
  _wait_until(lambda: subprocess.call(
      ['flock', '-n', str(run / '.lock'), 'true']))
  process = _start(*(_sweep(data, tmp_path, '--methods=mixup') + ['--run']
                     + TRAINING))
  try:
    while 'waiting for it' not in process.stdout.readline():
      assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
  finally:
    _kill_all(process)
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
  assert not (run / 'log.txt').exists()


def test_presets_fill_each_run(data, tmp_path):
  code, out = _run(*([
      '--python=' + sys.executable, '--datasets=digits', '--preset=cpu',
      '--noise_levels=0.4', '--data_root=' + data, '--runs_root=%s' % tmp_path,
      '--eval_interval_secs=1', '--methods=mixup', '--run'] + TRAINING + [
          '--max_number_of_steps=1']))
  assert code == 0, out
  run = tmp_path / 'digits' / '0.4' / 'mixup' / 'seed0'
  assert '--preset=cpu, digits at noise 0.4: ' in (run / 'log.txt').read_text()
  with open(str(run / 'train' / 'config.json')) as f:
    config = json.load(f)
  assert config['mixup_alpha'] == 1 and config['batch_size'] == 8
