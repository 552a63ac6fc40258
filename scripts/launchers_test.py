"""The launchers of clusters: what they start, and how that ends.

Most tests use stand-ins for the Python that runs the tasks and for Slurm's
srun. Only `test_local_trains` starts a server of TensorFlow.
"""
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

SCRIPTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(SCRIPTS)
PATIENCE_SECS = 300
TASKS = ['evaluator0', 'ps0', 'ps1', 'worker0', 'worker1', 'worker2']

# Runs until there is a file `finish`, which ends it at once. A file
# `codes.worker1` has the exit codes of its first starts, one a line. On a
# signal the chief waits for the other worker's end, and notes whether ps 0 is
# still there.
FAKE_PYTHON = r'''#!/usr/bin/env bash
[[ $1 != -c ]] || exit 0
for flag; do
  case $flag in
    --train_log_dir=*) cd "${flag#*=}" ;;
    --job_name=*) name=${flag#*=} ;;
    --task=*) name+=${flag#*=} ;;
  esac
done
ended() {
  echo "$name $1" >>events
  if [[ $name == worker0 ]]; then
    until grep -q 'worker1 .*' events; do sleep 0.1; done
    kill -0 "$(<pid.ps0)" && echo 'worker0 saved' >>events
  fi
  exit "$2"
}
trap 'ended HUP 129' HUP
trap 'ended TERM 143' TERM
echo $$ >"pid.$name"
echo "$name TF_CONFIG=${TF_CONFIG:-} $*" >>starts
if [[ -s codes.$name ]]; then
  code=$(head -n 1 "codes.$name")
  sed -i 1d "codes.$name"
  echo "$name: error: code $code"
  exit "$code"
fi
echo "$name at work"
until [[ -e finish ]]; do sleep 0.1; done
'''

# Runs each task in a session of its own, two on a node, and sends each signal
# to all processes of a task, twice.
FAKE_SRUN = f'''#!{sys.executable}
import contextlib, os, signal, subprocess, sys, time
flags, command = [], sys.argv[1:]
while command[0].startswith('--'):
  flags.append(command.pop(0))
assert '--distribution=block' in flags and '--cpus-per-task=3' in flags
environments = [
    dict(os.environ, SLURM_PROCID=str(k), SLURMD_NODENAME=f'node{{k // 2}}')
    for k in range(int(os.environ['SLURM_NTASKS']))]
if '--label' in flags:
  for k, env in reversed(list(enumerate(environments))):
    print(f'{{k}}:', subprocess.check_output(command, env=env).decode(), end='')
  sys.exit()
tasks = [subprocess.Popen(command, env=env, start_new_session=True)
         for env in environments]
def send(number):
  for task in tasks:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(task.pid, number)
signal.signal(signal.SIGTERM, lambda *_: (send(15), send(15)))
codes = [None]
while None in codes and not any(codes):
  time.sleep(0.1)
  codes = [task.poll() for task in tasks]
send(signal.SIGKILL)
sys.exit(max(code or 0 for code in codes))
'''


class Launcher:
  """A directory with stand-ins, and the launcher that runs with them."""

  def __init__(self, directory):
    self.directory, self.train = directory, directory / 'train'
    self.train.mkdir()
    self.write('python', FAKE_PYTHON)
    self.write('srun', FAKE_SRUN)

  def write(self, name, text):
    (self.directory / name).write_text(text)
    (self.directory / name).chmod(0o755)

  def start(self, script, *args, **environment):
    self.process = subprocess.Popen(
        ['bash', os.path.join(SCRIPTS, script), *args], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        universal_newlines=True, env=dict(os.environ, **environment))

  def local(self, *settings, flags=('--listen_on_all_interfaces',), **env):
    self.start('local_cluster.sh', f'--python={self.directory}/python',
               *settings, '--', f'--train_log_dir={self.train}', *flags, **env)

  def slurm(self, workers=3, **env):
    self.start('slurm.sh', f'--train_log_dir={self.train}', TF_CONFIG='other',
               PATH=f'{self.directory}:{os.environ["PATH"]}',
               SLURM_NTASKS=str(workers), SLURM_CPUS_PER_TASK='3',
               SLURM_SUBMIT_DIR=ROOT, python=f'{self.directory}/python', **env)

  def finish(self):
    """Returns exit code, stdout and stderr."""
    out, err = self.process.communicate(timeout=PATIENCE_SECS)
    return self.process.returncode, out, err

  def send(self, number, task=None):
    """Sends a signal to a task, or to the launcher."""
    os.kill(int((self.train / f'pid.{task}').read_text()) if task
            else self.process.pid, number)

  def lines(self, name):
    path = self.directory / name
    return path.read_text().splitlines() if path.exists() else []

  def wait_for(self, count, name='train/starts'):
    _wait_until(lambda: len(self.lines(name)) >= count)


def _wait_until(condition):
  deadline = time.time() + PATIENCE_SECS
  while not condition():
    assert time.time() < deadline
    time.sleep(0.1)


@pytest.fixture
def launcher(tmp_path):
  """A `Launcher`; its process group is killed at the end."""
  launcher = Launcher(tmp_path)
  yield launcher
  (tmp_path / 'train' / 'finish').write_text('')
  with contextlib.suppress(AttributeError, ProcessLookupError):
    os.killpg(launcher.process.pid, signal.SIGKILL)
    launcher.process.communicate()


@pytest.mark.parametrize('arguments,line', [
    (['--worker=2'], "unknown argument '--worker=2'"),
    (['--workers=2'], '--train_log_dir=DIR must be given'),
    (['--servers=0', '--', '--train_log_dir=x'], 'must be whole numbers')])
def test_local_names_a_slip(launcher, arguments, line):
  launcher.start('local_cluster.sh', *arguments)
  code, out, err = launcher.finish()
  assert code == 2 and not out
  assert line in err and err.count('\n') == 1


def test_local_asks_for_the_flag_where_namespaces_are_forbidden(launcher):
  launcher.write('unshare', '#!/bin/sh\nexit 1\n')
  launcher.local(flags=(), PATH=f'{launcher.directory}:{os.environ["PATH"]}')
  code, _, err = launcher.finish()
  assert code == 2 and err.count('\n') == 1
  assert 'forbids a network namespace' in err
  assert 'give --listen_on_all_interfaces after --' in err
  assert not launcher.lines('train/starts')


def test_local_starts_every_task(launcher):
  (launcher.train / 'finish').write_text('')
  launcher.local('--devices=0,3', '--workers=3', '--servers=2', '--port=3000',
                 TF_CONFIG='other')
  code, out, err = launcher.finish()
  assert code == 0, err
  assert out == 'worker0 at work\n'
  starts = sorted(launcher.lines('train/starts'))
  assert [start.split()[0] for start in starts] == TASKS
  for start, device in zip(starts, ['', '', '', '0', '3', '0']):
    assert f'--device_id={device} ' in start + ' '
    assert ' TF_CONFIG= ' in start
    assert ' --ps_hosts=127.0.0.1:3000,127.0.0.1:3001 ' in start
    assert (' --worker_hosts=127.0.0.1:3002,127.0.0.1:3003,127.0.0.1:3004 '
            in start)
  log = launcher.lines('train-logs/worker0.txt')
  assert '--job_name=worker --task=0' in log[0] and log[1] == 'worker0 at work'


@pytest.mark.slow
def test_local_starts_again_what_died_until_all_have_ended(launcher):
  (launcher.train / 'codes.worker1').write_text('1\n139\n')
  launcher.local()
  launcher.wait_for(6)
  launcher.send(signal.SIGKILL, 'ps0')
  launcher.wait_for(7)
  (launcher.train / 'finish').write_text('')
  code, _, err = launcher.finish()
  assert code == 0
  for line in ('worker1 ended with exit code 1\n',
               'worker1: worker1: error: code 1\n',
               'worker1 ended with exit code 139',
               'ps0 ended with exit code 137'):
    assert line in err
  for name in ('ps0', 'worker0', 'worker1', 'evaluator0'):
    assert f'{name} ended with exit code 0' in err


@pytest.mark.slow
@pytest.mark.parametrize('codes,code', [('1\n1\n', 1), ('2\n', 2)])
def test_local_gives_up(launcher, codes, code):
  (launcher.train / 'codes.ps0').write_text(codes)
  launcher.local('--restarts=1', '--no_evaluator')
  returned, _, err = launcher.finish()
  assert returned == code
  assert err.count('starting ps0 again, 1 of 1 times') == (code == 1)
  assert 'stopping the others' in err and 'evaluator' not in err
  assert 'worker1 ended with exit code 143' in err


@pytest.mark.slow
def test_local_stops_the_workers_first(launcher):
  launcher.local()
  launcher.wait_for(4)
  launcher.send(signal.SIGHUP)  # The terminal has closed.
  launcher.send(signal.SIGTERM)
  code, _, err = launcher.finish()
  assert code == 143 and 'stopped by TERM; rerun the same command' in err
  events = launcher.lines('train/events')
  assert sorted(events[:3]) == ['worker0 TERM', 'worker0 saved', 'worker1 TERM']
  assert sorted(events[3:]) == ['evaluator0 TERM', 'ps0 TERM']


@pytest.mark.slow
def test_local_stops_all_at_the_second_signal(launcher):
  launcher.local('--workers=1')  # Worker 0 waits forever.
  launcher.wait_for(3)
  launcher.send(signal.SIGINT)
  launcher.wait_for(1, 'train/events')
  launcher.send(signal.SIGINT)
  code, _, err = launcher.finish()
  assert code == 130
  assert 'worker0 ended with exit code 137' in err
  assert 'ps0 ended with exit code 137' in err


@pytest.mark.slow
def test_local_trains(launcher):
  if subprocess.call(['unshare', '--user', '--map-root-user', '--net', 'true'],
                     stderr=subprocess.DEVNULL):
    pytest.skip('this system forbids a network namespace (unshare)')
  root = launcher.directory
  subprocess.check_call(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       f'--output_dir={root}'], stdout=subprocess.DEVNULL)
  launcher.start(
      'local_cluster.sh', '--workers=1', '--python=' + sys.executable, '--',
      f'--data_dir={root}/0.4', f'--train_log_dir={root}/train',
      '--dataset_name=digits', '--studentnet=resnet8_thin', '--batch_size=8',
      '--method=mixup', '--max_number_of_steps=2', '--save_interval_secs=5')
  code, out, err = launcher.finish()
  assert code == 0, err
  assert 'trained to step 2' in out.splitlines()[-1]
  assert launcher.lines('eval/results.csv')[-1].startswith('2,')


def test_slurm_tasks_know_where_all_are(launcher):
  (launcher.train / 'finish').write_text('')
  launcher.slurm(servers='2', port='3000', CUDA_VISIBLE_DEVICES='GPU-7')
  code, _, err = launcher.finish()
  assert code == 0, err
  starts = sorted(launcher.lines('train/starts'))
  assert [start.split()[0] for start in starts] == TASKS
  for start in starts:
    assert ' TF_CONFIG= ' in start and ' --listen_on_all_interfaces ' in start
    assert ' --ps_hosts=node0:3000,node0:3001 ' in start
    assert ' --worker_hosts=node0:3002,node0:3003,node1:3004 ' in start
    assert start.endswith(
        '--device_id=' + 'GPU-7' * start.startswith('worker'))
  assert launcher.lines('train-logs/worker2.txt') == ['worker2 at work']


@pytest.mark.slow
def test_slurm_ends_with_the_task_that_fails(launcher):
  (launcher.train / 'codes.evaluator0').write_text('1\n')
  launcher.slurm()
  code, _, err = launcher.finish()
  assert code == 1
  assert 'evaluator0 ended with exit code 1: evaluator0: error: code 1' in err


@pytest.mark.slow
def test_slurm_stopped_the_chief_saves_with_its_servers(launcher):
  """Whatever Slurm sends to whom: the servers and the chief end last."""
  launcher.slurm(workers=2)
  launcher.wait_for(4)
  os.killpg(launcher.process.pid, signal.SIGTERM)
  launcher.process.wait()  # The batch script's bash is ended, as in a job.
  server = (launcher.train / 'pid.ps0').read_text().strip()
  _wait_until(lambda: not os.path.exists('/proc/' + server))
  assert sorted(launcher.lines('train/events')) == [
      'evaluator0 HUP', 'worker0 HUP', 'worker0 saved', 'worker1 HUP']


@pytest.fixture(scope='module')
def objects():
  """'Kind name' -> object of the Kubernetes manifest."""
  with open(os.path.join(SCRIPTS, 'kubernetes.yaml')) as f:
    return {f'{item["kind"]} {item["metadata"]["name"]}': item
            for item in yaml.safe_load(f)['items']}


def test_kubernetes_lets_only_pods_of_the_run_in(objects):
  pods = {'matchLabels': {'app': 'mentormix'}}
  assert objects['NetworkPolicy mentormix']['spec'] == {
      'podSelector': pods, 'policyTypes': ['Ingress'],
      'ingress': [{'from': [{'podSelector': pods}],
                   'ports': [{'protocol': 'TCP', 'port': 2222}]}]}
  assert objects['Service mentormix']['spec']['selector'] == pods['matchLabels']


@pytest.mark.parametrize('name', ['ps', 'worker', 'evaluator'])
def test_kubernetes_has_a_pod_for_each_host(launcher, objects, name):
  spec = objects['Job mentormix-' + name]['spec']
  pod = spec['template']['spec']
  assert spec['template']['metadata']['labels'] == {'app': 'mentormix'}
  assert spec['completionMode'] == 'Indexed'
  assert spec['completions'] == spec['parallelism']
  assert spec['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [2]
  assert pod['subdomain'] == 'mentormix' and pod['restartPolicy'] == 'Never'
  assert pod['automountServiceAccountToken'] is False
  container, = pod['containers']
  assert ('resources' in container) == (name == 'worker')
  assert container['volumeMounts'][0]['mountPath'] == container['workingDir']
  hosts = ','.join(f'mentormix-{name}-{k}.mentormix:2222'
                   for k in range(spec['completions']))
  assert (name == 'evaluator'
          or f'--{name}_hosts={hosts}' in container['command'])

  # The container runs the training command.
  (launcher.directory / 'scripts').mkdir()
  launcher.write('scripts/setup_env.sh', f'echo {launcher.directory}/show')
  launcher.write('show', f'#!{sys.executable}\nimport signal, sys\n'
                 'print(signal.getsignal(15) == signal.SIG_IGN, *sys.argv[1:])')
  # Kubernetes replaces $$ by $; a lone $( would name one of its variables.
  assert not re.search(r'(?<!\$)\$\(', ' '.join(container['command']))
  words = subprocess.check_output(
      [word.replace('$$', '$') for word in container['command']],
      cwd=str(launcher.directory), universal_newlines=True, env=dict(
          os.environ, HOSTNAME=f'mentormix-{name}-1',
          JOB_COMPLETION_INDEX='1')).split()
  assert words[:2] == [str(name == 'ps'), 'code/cifar_train_mentormix.py']
  assert '--listen_on_all_interfaces' in words
  assert words[-3:] == [f'--job_name={name}', '--task=1',
                        '--device_id=' + '0' * (name == 'worker')]
