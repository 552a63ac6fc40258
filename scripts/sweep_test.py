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
SCRIPT = os.path.join(ROOT, 'scripts', 'sweep.sh')
# Stands in for Python: takes TEST_SECS seconds; fails if its command line has
# TEST_FAILS; SIGTERM ends it.
PYTHON = '''#!/bin/bash
[[ $1 != -c ]] || exit 0
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


def _results(run, folder='eval'):
  """Step -> the row of results.csv, without the time."""
  with open(str(run / folder / 'results.csv')) as f:
    return {int(row['step']): [row[name] for name in ('top1', 'top5', 'loss')]
            for row in csv.DictReader(f)}


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
    (['--methods=magic', '--python=' + sys.executable],
     '--methods=magic: magic is not one of cross_entropy, boot'),
    (['--methods=mixup,mixup'], 'names one twice'),
    (['--methods='], '--methods= is not'),
    (['--noise_levels=0.4,,0.6'], '--noise_levels=0.4,,0.6 is not a list'),
    (['--noise_levels=../0.4'], 'is not a list of directories'),
    (['--seeds=-1'], '--seeds=-1 is not a list of numbers'),
    (['--jobs=0'], '--jobs=0 is not a number from 1'),
    (['--devices=gpu'], '--devices=gpu is not a list of GPUs'),
    (['--preset=best', '--python=' + sys.executable],
     '--preset=best: best is not one of published, cpu'),
    (['--preset=cpu,none'], '--preset=cpu,none is not a preset'),
    (['--checkpoint_paths=none,'], '--checkpoint_paths=none, is not a list'),
    (['--checkpoint_paths=a/b,a-b'], 'two would have one directory'),
    (['--run', '--checkpoint_paths=none,/nowhere'],
     '--checkpoint_paths=none,/nowhere: /nowhere does not exist'),
    (['--run=4'], '--run=4: the last run is 3'),
    (['--run=first'], '--run=first is not the number of a line'),
    (['--run', '--slurm_array'], 'give --run or --slurm_array, not both'),
    (['--slurm_array', '--data_root=/nowhere'], '/nowhere/cifar10/0.4 does'),
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


def test_runs_from_checkpoints_and_other_test_sets(sweep, tmp_path):
  for name in ('0.4_holdout', 'val_ilsvrc12'):
    (tmp_path / 'data' / 'cifar10' / name).mkdir()
  (tmp_path / 'ckpt 1').mkdir()
  out, code = _run(*sweep, '--methods=mixup', '--run',
                   f'--checkpoint_paths=none,{tmp_path}/ckpt 1')
  assert code == 0, out
  logs = _logs(tmp_path / 'runs')
  scratch, tuned = sorted(logs)
  assert scratch == 'mixup'
  assert tuned == f'mixup-from{tmp_path}/ckpt 1'.replace('/', '-').replace(
      ' ', '-')
  assert '--checkpoint_path' not in logs[scratch]
  assert f'--checkpoint_path={tmp_path}/ckpt 1 --preset' in logs[tuned]
  for method, text in logs.items():
    for data, to in (('val', 'eval'), ('0.4_holdout', 'holdout'),
                     ('val_ilsvrc12', 'eval/ilsvrc12')):
      assert (f'--data_dir={tmp_path}/data/cifar10/{data} --batch_size=100 '
              f'--checkpoint_dir={tmp_path}/runs/cifar10/0.4/{method}/seed0/'
              f'train --eval_dir={tmp_path}/runs/cifar10/0.4/{method}/seed0/'
              f'{to} ') in text
    assert text.count('done code/') == 4


def test_a_task_of_a_slurm_array_is_one_run(sweep, tmp_path):
  args = sweep + ['--methods=mixup,mentormix', '--seeds=0,1']
  more = ['--', '--mixup_alpha=2']
  lines = _run(*args, *more)[0].splitlines()
  script, code = _run(*args, '--slurm_array', *more)
  assert code == 0 and '\n#SBATCH --array=0-3\n' in script
  assert script.startswith('#!/usr/bin/env bash\n')
  for k, (method, seed) in enumerate([('mixup', 0), ('mentormix', 0),
                                      ('mixup', 1), ('mentormix', 1)]):
    process = subprocess.run(
        ['bash', '-c', script], stdout=subprocess.PIPE, check=True, cwd='/',
        stderr=subprocess.STDOUT, universal_newlines=True, env=dict(
            os.environ, SLURM_ARRAY_TASK_ID=str(k), CUDA_VISIBLE_DEVICES='3',
            TEST_FAILS='nothing'))
    log, = (tmp_path / 'runs').glob(f'cifar10/0.4/{method}/seed{seed}/log.txt')
    assert process.stdout.count('sweep: start: ') == 1
    assert len(list((tmp_path / 'runs').glob('*/*/*/*/log.txt'))) == k + 1
    started = [line.partition(' ')[2].replace('--device_id=3', '--device_id=')
               for line in log.read_text().splitlines() if '--data' in line]
    assert len(started) == 2
    for command in started:
      assert f' {command} &' in lines[k]


@pytest.mark.slow
def test_an_interrupted_sweep_ends_as_an_uninterrupted_one(tmp_path):
  """kill -9 of a training, SIGTERM, then kill -9 of everything."""
  subprocess.run(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       '--num_train=200', f'--output_dir={tmp_path}/digits'], check=True,
      stdout=subprocess.PIPE)
  methods = ('mixup', 'mentormix')

  def arguments(runs):
    return ['--python=' + sys.executable, '--datasets=digits', '--preset=none',
            '--noise_levels=0.4', f'--data_root={tmp_path}', '--run',
            f'--runs_root={runs}', '--eval_interval_secs=1', '--jobs=1000',
            '--methods=' + ','.join(methods), '--',  # One thread each.
            '--studentnet=resnet8_thin', '--batch_size=8',
            '--save_interval_secs=1', '--max_number_of_steps=60',
            '--trained_mentornet_dir=mentornet_models/mentornet_pd']

  def run_of(runs, method):
    return tmp_path / runs / 'digits' / '0.4' / method / 'seed0'

  def wait_for_more(known):
    """Until both runs have results of more than `known` steps."""
    for method in methods:
      path = run_of('cut', method) / 'eval' / 'results.csv'
      _wait_until(lambda: path.exists() and len(_results(
          run_of('cut', method))) > known)

  out, code = _run(*arguments(tmp_path / 'whole'))
  assert code == 0, out
  args = arguments(tmp_path / 'cut')
  process = _start(*args)
  wait_for_more(0)
  training, = subprocess.run(
      ['pgrep', '-f', f'cifar_train.*{run_of("cut", "mixup")}/train .*-device_'
       'id=$'], stdout=subprocess.PIPE, universal_newlines=True).stdout.split()
  os.kill(int(training), signal.SIGKILL)
  _wait_until(lambda: 'Killed' in (run_of('cut', 'mixup') / 'log.txt'
                                   ).read_text())
  os.kill(process.pid, signal.SIGTERM)
  out, _ = process.communicate(timeout=300)
  assert process.returncode == 143, out
  process = _start(*args)
  wait_for_more(2)
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
  for method in methods:
    whole, cut = [_results(run_of(runs, method)) for runs in ('whole', 'cut')]
    assert max(whole) == max(cut) == 60
    for step in set(whole) & set(cut):  # Checkpoints follow the clock.
      assert whole[step] == cut[step], step
  out, code = _run(*args)
  assert code == 0 and out.count('finished before: ') == 2
