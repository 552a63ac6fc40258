"""The sweep: what it prints; runs that are stopped, killed and failed."""
import csv
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, 'scripts', 'sweep_cifar.sh')
# Stands in for Python: takes TEST_SECS seconds; fails if its command line has
# TEST_FAILS; SIGTERM ends it.
PYTHON = '''#!/bin/bash
trap 'echo stopped $1; exit 143' TERM
echo "threads=$OMP_NUM_THREADS $*"
[[ " $* " != *$TEST_FAILS* ]] || {
  sleep 0.5; echo "$1: error: it fails"; exit 2; }
for ((i = 0; i < ${TEST_SECS:-0}; i++)); do sleep 1 & wait $!; done
echo "done $1"
'''


def _start(*args, **environ):
  return subprocess.Popen(
      ['bash', SCRIPT, *map(str, args)], stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True, cwd='/',
      env=dict(os.environ, **dict({'TEST_FAILS': 'nothing'}, **environ)))


def _run(*args, **environ):
  process = _start(*args, **environ)
  return process.communicate(timeout=500)[0], process.returncode


def _wait_until(condition):
  deadline = time.time() + 300
  while not condition():
    assert time.time() < deadline
    time.sleep(0.05)


def _logs(runs):
  return {path.parent.parent.name: path.read_text()
          for path in runs.glob('*/*/*/*/log.txt')}


@pytest.fixture
def sweep(tmp_path):
  """The arguments of a sweep that --run accepts."""
  for name in ('0.4', 'val'):
    (tmp_path / 'data' / 'cifar10' / name).mkdir(parents=True)
  python = tmp_path / 'python'
  python.write_text(PYTHON)
  python.chmod(0o755)
  return [f'--python={python}', f'--data_root={tmp_path}/data',
          f'--runs_root={tmp_path}/runs', '--noise_levels=0.4']


def test_it_prints_every_command_and_starts_nothing(tmp_path):
  out, code = _run('--datasets=cifar10,cifar100', '--noise_levels=0.2,worse',
                   '--methods=mixup,mentormix', '--seeds=0,1',
                   '--devices=0,3', f'--runs_root={tmp_path}/a b',
                   '--python=/my/python', '--', '--mixup_alpha=2')
  lines = out.splitlines()
  assert code == 0 and len(lines) == len(set(lines)) == 2 * 2 * 2 * 2
  for k, line in enumerate(lines):
    assert line.count(f'--device_id={[0, 3][k % 2]} ') == 2
    assert '--preset=published --mixup_alpha=2 ' in line
    assert line.count('/my/python code/cifar_') == 2
  assert (f'--data_dir=data/cifar100/worse --train_log_dir={tmp_path}/a\\ b/'
          'cifar100/worse/mentormix/seed1/train --method=mentormix --seed=1'
          ) in lines[-1]
  assert not os.listdir(str(tmp_path))


def test_a_printed_line_is_a_command(sweep, tmp_path):
  runs = tmp_path / "it's"
  out, _ = _run(*sweep, '--methods=mixup', '--jobs=1000',
                f'--runs_root={runs}')
  subprocess.run(['bash', '-ec', out], check=True, cwd=ROOT,
                 env=dict(os.environ, TEST_FAILS='nothing'))
  lines = sorted(_logs(runs)['mixup'].splitlines())
  assert lines[2].startswith('threads=1 code/cifar_eval.py --data_dir=')
  assert lines[3].startswith('threads=1 code/cifar_train_mentormix.py --data')
  assert shlex.quote(str(runs)) not in lines[3] and str(runs) in lines[3]


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
    (['--method=mixup'], "argument '--method=mixup'"),
    (['--', 'mixup_alpha=2'], "unexpected 'mixup_alpha=2' after --"),
    (['--', '--seed=3'], '--seed=3 after --: the sweep sets that itself'),
    (['--runs_root='], "empty argument '--runs_root='"),
    (['--seeds=00,0'], '--seeds=00,0 is not a list of numbers'),
    (['--noise_levels=val'], 'val is the test set'),
    (['--run', '--python=/nowhere/python'], '--python=/nowhere/python does'),
    (['--run', '--data_root=/nowhere'],
     '/nowhere/cifar10/0.4 does not exist; make it with code/prepare_data.py'),
])
def test_bad_input_is_one_line(sweep, tmp_path, flags, message):
  out, code = _run(*sweep, *flags)
  assert code == 2
  assert out.count('\n') == 1 and message in out
  assert not list((tmp_path / 'runs').glob('*'))


def test_finished_runs_are_skipped_and_failed_ones_tried_again(sweep, tmp_path):
  args = sweep + ['--run', '--devices=0,3']
  out, code = _run(*args, TEST_FAILS='--method=mentornet')
  assert code == 1 and out.count('sweep: finished: ') == 3
  assert 'code/cifar_train_mentormix.py: error: it fails' in out
  out, code = _run(*args)
  assert code == 0 and out.count('sweep: finished before: ') == 3
  assert out.count('sweep: start: ') == 1 and 'code/report.py --runs=' in out
  for log in _logs(tmp_path / 'runs').values():
    assert '--device_id=0\n' in log or '--device_id=3\n' in log
  # What is finished with other settings is not what is asked for now.
  out, code = _run(*args, '--methods=mixup', '--', '--mixup_alpha=3')
  assert code == 0 and out.count('sweep: start: ') == 1


@pytest.mark.parametrize('failed, other', [
    ('code/cifar_train_mentormix.py', 'code/cifar_eval.py'),
    ('code/cifar_eval.py', 'code/cifar_train_mentormix.py')])
def test_a_process_that_fails_ends_the_other(sweep, tmp_path, failed, other):
  out, code = _run(*sweep, '--methods=mixup', '--run', TEST_FAILS=failed,
                   TEST_SECS='100')
  assert code == 1 and failed + ': error: it fails' in out
  assert 'stopped ' + other in _logs(tmp_path / 'runs')['mixup']


def test_a_signal_stops_every_run(sweep, tmp_path):
  process = _start(*sweep, '--methods=mixup,mentormix,mentornet', '--run',
                   TEST_SECS='100')
  _wait_until(lambda: sum(log.count('threads=') for log in
                          _logs(tmp_path / 'runs').values()) == 4)
  os.kill(process.pid, signal.SIGHUP)  # The terminal closes: it continues.
  time.sleep(0.2)
  assert process.poll() is None
  os.kill(process.pid, signal.SIGTERM)
  out, _ = process.communicate(timeout=100)
  assert process.returncode == 143 and 'rerun the same command to resume' in out
  logs = _logs(tmp_path / 'runs')
  assert sorted(logs) == ['mentormix', 'mixup']
  for log in logs.values():
    assert log.count('stopped code/') == 2 and 'done' not in log


@pytest.mark.slow
def test_runs_killed_in_the_middle(tmp_path):
  """kill -9 of everything; the same command completes the grid."""
  subprocess.run(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       f'--output_dir={tmp_path}/digits'], check=True, stdout=subprocess.PIPE)
  args = ['--python=' + sys.executable, '--datasets=digits', '--preset=none',
          '--noise_levels=0.4', f'--data_root={tmp_path}', '--run',
          f'--runs_root={tmp_path}/runs', '--eval_interval_secs=1',
          '--methods=mixup,mentormix,mentornet', '--jobs=2', '--',
          '--studentnet=resnet8_thin', '--batch_size=8',
          '--save_interval_secs=1', '--max_number_of_steps=20',
          '--trained_mentornet_dir=mentornet_models/mentornet_pd']
  runs = [tmp_path / 'runs' / 'digits' / '0.4' / method / 'seed0'
          for method in ('mixup', 'mentormix', 'mentornet')]
  process = _start(*args)
  _wait_until((runs[0] / 'eval' / 'results.csv').exists)
  children = subprocess.run(
      ['pgrep', '-g', subprocess.run(
          ['pgrep', '-P', str(process.pid)], stdout=subprocess.PIPE,
          universal_newlines=True).stdout.split()[0]], stdout=subprocess.PIPE,
      universal_newlines=True).stdout.split()
  for pid in [process.pid] + [int(child) for child in children]:
    os.kill(pid, signal.SIGKILL)
  process.communicate()
  out, code = _run(*args)
  assert code == 0 and 'all finished' in out, out
  for run in runs:
    with open(str(run / 'eval' / 'results.csv')) as f:
      steps = [int(row['step']) for row in csv.DictReader(f)]
    assert steps == sorted(set(steps)) and steps[-1] == 20
  out, code = _run(*args)
  assert code == 0 and out.count('finished before: ') == 3
