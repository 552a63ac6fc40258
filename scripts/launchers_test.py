"""The launchers of clusters: what they start, and how that ends.

Most tests use stand-ins for the Python that runs the tasks and for Slurm's
srun. Nothing here starts a server of TensorFlow but `test_local_trains`.
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
import os, signal, subprocess, sys, time
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
    try:
      os.killpg(task.pid, number)
    except ProcessLookupError:
      pass
signal.signal(signal.SIGTERM, lambda *_: (send(15), send(15)))
codes = [None]
while None in codes and not any(codes):
  time.sleep(0.1)
  codes = [task.poll() for task in tasks]
send(signal.SIGKILL)
sys.exit(max(code or 0 for code in codes))
'''


def _write(path, text):
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def run_dir(tmp_path):
  """A directory with stand-ins, and `train` for the tasks to work in."""
  (tmp_path / 'train').mkdir()
  _write(tmp_path / 'python', FAKE_PYTHON)
  _write(tmp_path / 'srun', FAKE_SRUN)
  yield tmp_path
  (tmp_path / 'train' / 'finish').write_text('')


class _Launched:
  """A launcher that runs; its process group is killed at the end."""

  def __init__(self, *command, **environment):
    self.process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        universal_newlines=True, start_new_session=True,
        env=dict(os.environ, **environment))

  def __enter__(self):
    return self

  def __exit__(self, *unused_error):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.communicate()

  def finish(self):
    out, err = self.process.communicate(timeout=PATIENCE_SECS)
    return self.process.returncode, out, err


def _local(run_dir, *settings, flags=('--listen_on_all_interfaces',), **env):
  return _Launched(
      'bash', os.path.join(SCRIPTS, 'local_cluster.sh'),
      f'--python={run_dir}/python', *settings, '--',
      f'--train_log_dir={run_dir}/train', *flags, **env)


def _slurm(run_dir, workers=3, **env):
  return _Launched(
      'bash', os.path.join(SCRIPTS, 'slurm.sh'),
      f'--train_log_dir={run_dir}/train',
      PATH=f'{run_dir}:{os.environ["PATH"]}', SLURM_NTASKS=str(workers),
      SLURM_CPUS_PER_TASK='3', SLURM_SUBMIT_DIR=ROOT, TF_CONFIG='other',
      python=f'{run_dir}/python', **env)


def _wait_until(condition):
  deadline = time.time() + PATIENCE_SECS
  while not condition():
    assert time.time() < deadline
    time.sleep(0.1)


def _lines(path):
  return path.read_text().splitlines() if path.exists() else []


def _wait_for_starts(run_dir, count):
  _wait_until(lambda: len(_lines(run_dir / 'train' / 'starts')) == count)


@pytest.fixture
def unshare():
  """Skips the test where the system forbids a network namespace."""
  if subprocess.call(['unshare', '--user', '--map-root-user', '--net', 'true'],
                     stderr=subprocess.DEVNULL):
    pytest.skip('this system forbids a network namespace (unshare)')


# ------------------------------------------------------------ local_cluster


@pytest.mark.parametrize('arguments,line', [
    (['--worker=2'], "unknown argument '--worker=2'"),
    (['--workers=2'], '--train_log_dir=DIR must be given'),
    (['--servers=0', '--', '--train_log_dir=x'], 'must be whole numbers')])
def test_local_names_a_slip(arguments, line):
  with _Launched('bash', 'scripts/local_cluster.sh', *arguments) as launched:
    code, out, err = launched.finish()
  assert code == 2 and not out
  assert line in err and err.count('\n') == 1


def test_local_asks_for_the_flag_where_namespaces_are_forbidden(run_dir):
  _write(run_dir / 'unshare', '#!/bin/sh\nexit 1\n')
  with _local(run_dir, flags=(),
              PATH=f'{run_dir}:{os.environ["PATH"]}') as launched:
    code, _, err = launched.finish()
  assert code == 2 and err.count('\n') == 1
  assert 'forbids a network namespace' in err
  assert 'give --listen_on_all_interfaces after --' in err
  assert not (run_dir / 'train' / 'starts').exists()


def test_local_starts_every_task(run_dir):
  (run_dir / 'train' / 'finish').write_text('')
  with _local(run_dir, '--devices=0,3', '--workers=3', '--servers=2',
              '--port=3000', TF_CONFIG='other') as launched:
    code, out, err = launched.finish()
  assert code == 0, err
  assert out == 'worker0 at work\n'
  starts = sorted(_lines(run_dir / 'train' / 'starts'))
  assert [start.split()[0] for start in starts] == [
      'evaluator0', 'ps0', 'ps1', 'worker0', 'worker1', 'worker2']
  for start, device in zip(starts, ['', '', '', '0', '3', '0']):
    assert start.endswith('--device_id=' + device)
    assert ' TF_CONFIG= ' in start
    assert ' --ps_hosts=127.0.0.1:3000,127.0.0.1:3001 ' in start
    assert (' --worker_hosts=127.0.0.1:3002,127.0.0.1:3003,127.0.0.1:3004 '
            in start)
  log = _lines(run_dir / 'train-logs' / 'worker0.txt')
  assert '--job_name=worker --task=0' in log[0] and log[1] == 'worker0 at work'


@pytest.mark.slow
def test_local_starts_again_what_died_until_all_have_ended(run_dir):
  train = run_dir / 'train'
  (train / 'codes.worker1').write_text('1\n139\n')
  with _local(run_dir) as launched:
    _wait_for_starts(run_dir, 6)
    os.kill(int((train / 'pid.ps0').read_text()), signal.SIGKILL)
    _wait_for_starts(run_dir, 7)
    (train / 'finish').write_text('')
    code, _, err = launched.finish()
  assert code == 0
  assert 'worker1 ended with exit code 1\n' in err
  assert 'worker1: worker1: error: code 1\n' in err
  assert 'worker1 ended with exit code 139' in err
  assert 'ps0 ended with exit code 137' in err
  for name in ('ps0', 'worker0', 'worker1', 'evaluator0'):
    assert f'{name} ended with exit code 0' in err


@pytest.mark.slow
@pytest.mark.parametrize('codes,code', [('1\n1\n', 1), ('2\n', 2)])
def test_local_gives_up(run_dir, codes, code):
  (run_dir / 'train' / 'codes.ps0').write_text(codes)
  with _local(run_dir, '--restarts=1', '--no_evaluator') as launched:
    returned, _, err = launched.finish()
  assert returned == code
  assert err.count('starting ps0 again, 1 of 1 times') == (code == 1)
  assert 'stopping the others' in err and 'evaluator' not in err
  assert 'worker1 ended with exit code 143' in err


@pytest.mark.slow
def test_local_stops_the_workers_first_and_all_at_the_second_signal(run_dir):
  with _local(run_dir) as launched:
    _wait_for_starts(run_dir, 4)
    os.kill(launched.process.pid, signal.SIGHUP)  # The terminal has closed.
    os.kill(launched.process.pid, signal.SIGTERM)
    code, _, err = launched.finish()
  assert code == 143 and 'stopped by TERM; rerun the same command' in err
  events = _lines(run_dir / 'train' / 'events')
  assert sorted(events[:3]) == ['worker0 TERM', 'worker0 saved', 'worker1 TERM']
  assert sorted(events[3:]) == ['evaluator0 TERM', 'ps0 TERM']
  for name in ('starts', 'events'):
    (run_dir / 'train' / name).unlink()
  with _local(run_dir, '--workers=1') as launched:  # Worker 0 waits forever.
    _wait_for_starts(run_dir, 3)
    os.kill(launched.process.pid, signal.SIGINT)
    _wait_until(lambda: _lines(run_dir / 'train' / 'events'))
    os.kill(launched.process.pid, signal.SIGINT)
    code, _, err = launched.finish()
  assert code == 130
  assert 'worker0 ended with exit code 137' in err
  assert 'ps0 ended with exit code 137' in err


@pytest.mark.slow
def test_local_trains(tmp_path, unshare):
  subprocess.check_call(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       f'--output_dir={tmp_path}'], stdout=subprocess.DEVNULL)
  with _Launched(
      'bash', 'scripts/local_cluster.sh', '--workers=1',
      '--python=' + sys.executable, '--', f'--data_dir={tmp_path}/0.4',
      f'--train_log_dir={tmp_path}/train', '--dataset_name=digits',
      '--studentnet=resnet8_thin', '--batch_size=8', '--method=mixup',
      '--max_number_of_steps=2', '--save_interval_secs=5') as launched:
    code, out, err = launched.finish()
  assert code == 0, err
  assert 'trained to step 2' in out.splitlines()[-1]
  assert _lines(tmp_path / 'eval' / 'results.csv')[-1].startswith('2,')


# -------------------------------------------------------------------- slurm


def test_slurm_tasks_know_where_all_are(run_dir):
  (run_dir / 'train' / 'finish').write_text('')
  with _slurm(run_dir, servers='2', port='3000',
              CUDA_VISIBLE_DEVICES='GPU-7') as launched:
    code, _, err = launched.finish()
  assert code == 0, err
  starts = sorted(_lines(run_dir / 'train' / 'starts'))
  assert [start.split()[0] for start in starts] == [
      'evaluator0', 'ps0', 'ps1', 'worker0', 'worker1', 'worker2']
  for start in starts:
    assert ' TF_CONFIG= ' in start and ' --listen_on_all_interfaces ' in start
    assert ' --ps_hosts=node0:3000,node0:3001 ' in start
    assert ' --worker_hosts=node0:3002,node0:3003,node1:3004 ' in start
    assert start.endswith(
        '--device_id=' + 'GPU-7' * start.startswith('worker'))
  assert _lines(run_dir / 'train-logs' / 'worker2.txt') == ['worker2 at work']


@pytest.mark.slow
def test_slurm_ends_with_the_task_that_fails(run_dir):
  (run_dir / 'train' / 'codes.evaluator0').write_text('1\n')
  with _slurm(run_dir) as launched:
    code, _, err = launched.finish()
  assert code == 1
  assert 'evaluator0 ended with exit code 1: evaluator0: error: code 1' in err


@pytest.mark.slow
def test_slurm_stopped_the_chief_saves_with_its_servers(run_dir):
  """Whatever Slurm sends to whom: the servers and the chief end last."""
  with _slurm(run_dir, workers=2) as launched:
    _wait_for_starts(run_dir, 4)
    os.killpg(launched.process.pid, signal.SIGTERM)
    launched.process.wait()  # The batch script's bash is ended, as in a job.
    server = (run_dir / 'train' / 'pid.ps0').read_text().strip()
    _wait_until(lambda: not os.path.exists('/proc/' + server))
  assert sorted(_lines(run_dir / 'train' / 'events')) == [
      'evaluator0 HUP', 'worker0 HUP', 'worker0 saved', 'worker1 HUP']


# --------------------------------------------------------------- kubernetes


@pytest.fixture(scope='module')
def objects():
  """'Kind name' -> object of the manifest."""
  with open(os.path.join(SCRIPTS, 'kubernetes.yaml')) as f:
    manifest = yaml.safe_load(f)
  assert (manifest['apiVersion'], manifest['kind']) == ('v1', 'List')
  return {f'{item["kind"]} {item["metadata"]["name"]}': item
          for item in manifest['items']}


def test_kubernetes_lets_only_pods_of_the_run_in(objects):
  pods = {'matchLabels': {'app': 'mentormix'}}
  assert objects['NetworkPolicy mentormix']['spec'] == {
      'podSelector': pods, 'policyTypes': ['Ingress'],
      'ingress': [{'from': [{'podSelector': pods}],
                   'ports': [{'protocol': 'TCP', 'port': 2222}]}]}
  assert objects['Service mentormix']['spec'] == {
      'clusterIP': 'None', 'publishNotReadyAddresses': True,
      'selector': pods['matchLabels'],
      'ports': [{'name': 'tensorflow', 'port': 2222}]}


@pytest.mark.parametrize('name', ['ps', 'worker', 'evaluator'])
def test_kubernetes_has_a_pod_for_each_host(objects, name):
  spec = objects['Job mentormix-' + name]['spec']
  template, pod = spec['template'], spec['template']['spec']
  assert template['metadata']['labels'] == {'app': 'mentormix'}
  assert spec['completionMode'] == 'Indexed'
  assert spec['completions'] == spec['parallelism']
  assert spec['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [2]
  assert pod['subdomain'] == 'mentormix' and pod['restartPolicy'] == 'Never'
  assert pod['automountServiceAccountToken'] is False
  container, = pod['containers']
  assert ('resources' in container) == (name == 'worker')
  claim, mount = pod['volumes'][0], container['volumeMounts'][0]
  assert claim['name'] == mount['name']
  assert mount['mountPath'] == container['workingDir']
  hosts = ','.join(f'mentormix-{name}-{k}.mentormix:2222'
                   for k in range(spec['completions']))
  if name != 'evaluator':
    assert f'--{name}_hosts={hosts}' in container['command']


@pytest.mark.parametrize('name', ['ps', 'worker', 'evaluator'])
def test_a_container_runs_the_training_command(run_dir, objects, name):
  container, = objects['Job mentormix-' + name]['spec']['template']['spec'][
      'containers']
  (run_dir / 'scripts').mkdir()
  (run_dir / 'scripts' / 'setup_env.sh').write_text(f'echo {run_dir}/show')
  _write(run_dir / 'show', f'#!{sys.executable}\nimport signal, sys\n'
         'print(signal.getsignal(15) == signal.SIG_IGN, *sys.argv[1:])\n')
  # Kubernetes replaces $$ by $; a lone $( would name one of its variables.
  assert not re.search(r'(?<!\$)\$\(', ' '.join(container['command']))
  command = [word.replace('$$', '$') for word in container['command']]
  out = subprocess.check_output(
      command, cwd=str(run_dir), universal_newlines=True, env=dict(
          os.environ, HOSTNAME=f'mentormix-{name}-1', JOB_COMPLETION_INDEX='1'))
  words = out.split()
  assert words[:2] == [str(name == 'ps'), 'code/cifar_train_mentormix.py']
  assert '--listen_on_all_interfaces' in words
  assert words[-3:] == [f'--job_name={name}', '--task=1',
                        '--device_id=' + '0' * (name == 'worker')]
