"""The launchers of clusters: what they print, and what becomes of their tasks.

Most tests take a stand-in for the Python that runs the tasks, and stand-ins for
Slurm and kubectl that run here.
"""
import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

SCRIPTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(SCRIPTS)
_PATIENCE_SECS = 1800  # With what hangs; other jobs may slow all this down.
TRAINING = ['--dataset_name=digits', '--studentnet=resnet8_thin',
            '--batch_size=8', '--method=mixup', '--max_number_of_steps=2',
            '--save_interval_secs=5', '--save_summaries_secs=0']

# Runs until there is a file `finish`. A file `codes.worker1` has exit codes, a
# line each, of its first starts. Asked to end, a chief waits for the other
# worker's end, and says whether the server is still there.
FAKE_PYTHON = r'''#!/usr/bin/env bash
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
echo "$name threads=$OMP_NUM_THREADS TF_CONFIG=$TF_CONFIG $*" >>starts
if [[ -s codes.$name ]]; then
  code=$(head -n 1 "codes.$name")
  sed -i 1d "codes.$name"
  echo "$name: error: code $code"
  exit "$code"
fi
echo "$name at work"
until [[ -e finish ]]; do sleep 0.1; done
echo "$name done"
'''

FAKES = {
    'nproc': '#!/bin/sh\necho 7\n',
    # Runs the job that it is given, as job 7.
    'sbatch': '#!/bin/sh\ncat >"$FAKE_JOB"\necho Submitted batch job 7\n',
    'scontrol': '#!/bin/sh\n[ "$1 $2" = "show hostnames" ] || exit 1\n'
                'echo "$3" | tr , "\\n"\n',
    'kubectl': '#!/bin/sh\necho "$@" >"$FAKE_JOB"\ncat >>"$FAKE_JOB"\n',
    # Starts the tasks on the nodes of FAKE_NODES, by default all on the first,
    # and sends each signal to all of their processes, twice.
    'srun': '#!%s\n' % sys.executable + r'''
import os, signal, subprocess, sys, time
words = [word for word in sys.argv[1:sys.argv.index('bash')]]
flags = dict(word.split('=', 1) for word in words)
assert flags.pop('--distribution') == 'block', words
assert flags.pop('--kill-on-bad-exit') == '1' and flags.pop('--wait') == '0'
ntasks = int(flags.pop('--ntasks'))
print('srun', flags, flush=True)
counts = os.environ.get('FAKE_COUNTS', str(ntasks))
nodes = os.environ.get('FAKE_NODES', '127.0.0.1').split(',')
where = os.environ.get('FAKE_WHERE', ','.join([nodes[0]] * ntasks)).split(',')
tasks = []
for k in range(ntasks):
  environment = dict(
      os.environ, SLURM_STEP_NODELIST=','.join(nodes), SLURM_PROCID=str(k),
      SLURM_STEP_TASKS_PER_NODE=counts, SLURMD_NODENAME=where[k])
  tasks.append(subprocess.Popen(
      sys.argv[sys.argv.index('bash'):], env=environment,
      start_new_session=True))

def send(number, *_):
  for task in tasks:
    try:
      os.killpg(task.pid, number)
    except ProcessLookupError:
      pass

def stop(*_):
  send(signal.SIGTERM)
  send(signal.SIGTERM)

signal.signal(signal.SIGTERM, stop)
codes = [None]
while None in codes and not any(codes):
  time.sleep(0.1)
  codes = [task.poll() for task in tasks]
send(signal.SIGKILL)
sys.exit(max(code or 0 for code in codes))
'''}


def _write(path, text):
  path.write_text(text)
  path.chmod(0o755)
  return str(path)


@pytest.fixture
def run_dir(tmp_path):
  """A directory with `python`, a stand-in, and `train` for it to work in."""
  (tmp_path / 'train').mkdir()
  _write(tmp_path / 'python', FAKE_PYTHON)
  yield tmp_path
  (tmp_path / 'train' / 'finish').write_text('')


@pytest.fixture
def tools(tmp_path):
  """The environment with the stand-ins on its PATH."""
  (tmp_path / 'bin').mkdir()
  for name, text in FAKES.items():
    _write(tmp_path / 'bin' / name, text)
  return dict(os.environ, FAKE_JOB=str(tmp_path / 'job'),
              PATH='%s:%s' % (tmp_path / 'bin', os.environ['PATH']))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """The --data_dir of a few digits, with `val` beside it."""
  directory = tmp_path_factory.mktemp('data')
  subprocess.run(
      [sys.executable, os.path.join(ROOT, 'code', 'prepare_data.py'),
       '--dataset_name=digits', '--noise_levels=0.4', '--num_shards=2',
       '--output_dir=%s' % directory], check=True, stdout=subprocess.PIPE)
  return str(directory / '0.4')


_started = []


def _start(*command, **options):
  process = subprocess.Popen(
      ['bash'] + list(command), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, universal_newlines=True, cwd='/',
      start_new_session=True, **options)  # A process group, to be killed.
  _started.append(process)
  return process


@pytest.fixture(autouse=True)
def no_process_is_left():
  """Kills what a test that failed has left."""
  yield
  while _started:
    process = _started.pop()
    try:
      os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    process.wait()


def _launch(name, *args, **options):
  return _start(os.path.join(SCRIPTS, name + '.sh'), *args, **options)


def _finish(process):
  """(exit code, stdout, stderr) of a launcher or a job."""
  out, err = process.communicate(timeout=_PATIENCE_SECS)
  return process.returncode, out, err


def _run(name, *args, **options):
  return _finish(_launch(name, *args, **options))


def _wait_until(condition):
  deadline = time.time() + _PATIENCE_SECS
  while not condition():
    assert time.time() < deadline
    time.sleep(0.1)


def _lines(path):
  return path.read_text().splitlines() if path.exists() else []


def _free_ports(count):
  """The first of `count` ports in a row that nobody uses."""
  for first in range(20000 + os.getpid() % 1000 * 12, 32768, count):
    try:
      for port in range(first, first + count):
        with socket.socket() as s:
          s.bind(('127.0.0.1', port))
      return first
    except OSError:
      pass
  raise AssertionError('no free ports')


def _steps(run):
  """The steps in the results.csv of a run."""
  with open(str(run / 'eval' / 'results.csv')) as f:
    return [int(row['step']) for row in csv.DictReader(f)]


# ---------------------------------------------------------------- all three

NAMES = ['local_cluster', 'slurm', 'kubernetes']
NEEDED = {'kubernetes': ['--image=python:3.11-slim', '--volume_claim=data']}


@pytest.mark.parametrize('name', NAMES)
def test_help_is_the_head_of_the_script(name):
  code, out, err = _run(name, '--help')
  assert code == 0 and not err
  assert 'Usage: scripts/%s.sh ' % name in out and 'set -' not in out


@pytest.mark.parametrize('name', NAMES)
def test_it_says_who_can_reach_the_ports(name):
  code, _, err = _run(name, *(NEEDED.get(name, []) + [
      '--python=p', '--', '--train_log_dir=t']))
  assert code == 0
  assert err.count('\n') == 1 and 'no authentication' in err


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('flags,message', [
    (['--worker=2'], "unknown argument '--worker=2'"),
    (['--workers=0', '--'], '--workers=0 is not a number from 1'),
    (['--workers=08', '--'], '--workers=08 is not a number'),
    (['--servers=', '--'], '--servers= is not a number'),
    (['--port=65536', '--'], '--port=65536 is not a number from 1 to 65'),
    ([], '--train_log_dir=DIR must be given'),
    (['--', '--train_log_dir='], '--train_log_dir=DIR must be given'),
    (['--', 'train_log_dir=x'], "unexpected 'train_log_dir=x' after --"),
    (['--', '--train_log_dir=x', '--task=1'],
     '--task=1 after --: the launcher sets that itself'),
    (['--', '--train_log_dir=x', '-ps_hosts=a:1'],
     "unexpected '-ps_hosts=a:1'"),
])
def test_bad_input_is_one_line(name, flags, message):
  code, out, err = _run(name, *(NEEDED.get(name, []) + flags))
  assert code == 2 and not out
  assert err.count('\n') == 1 and message in err


# ------------------------------------------------------------ local_cluster


def _local(run_dir, *args):
  return ['--python=%s' % (run_dir / 'python'), '--port=%d' % _free_ports(4)
         ] + list(args) + ['--', '--train_log_dir=%s' % (run_dir / 'train')]


def test_local_prints_every_command_and_starts_nothing(tmp_path):
  code, out, _ = _run(
      'local_cluster', '--devices=0,3,5', '--servers=2', '--port=3000',
      '--python=/my/python', '--', "--train_log_dir=%s/it's" % tmp_path,
      '--mixup_alpha=2')
  assert code == 0
  commands = [shlex.split(line) for line in out.splitlines()]
  assert [command[command.index('nohup') + 1:][3:5] for command in commands
         ] == [['/my/python', 'code/cifar_train_mentormix.py']] * 6
  tasks = [[word.split('=')[1] for word in command if word.startswith(
      ('--job_name=', '--task=', '--device_id='))] for command in commands]
  assert tasks == [['ps', '0', ''], ['ps', '1', ''], ['worker', '0', '0'],
                   ['worker', '1', '3'], ['worker', '2', '5'],
                   ['evaluator', '0', '']]
  for command in commands:
    assert '--mixup_alpha=2' in command
    assert '--ps_hosts=127.0.0.1:3000,127.0.0.1:3001' in command
    assert ('--worker_hosts=127.0.0.1:3002,127.0.0.1:3003,127.0.0.1:3004'
            in command)
    assert 'THREADS' not in ' '.join(command)
  assert not os.listdir(str(tmp_path))


def test_a_printed_line_is_a_command(run_dir, tools):
  (run_dir / 'train' / 'finish').write_text('')
  _, out, _ = _run('local_cluster', *_local(run_dir), env=tools)
  subprocess.run(['bash', '-ec', out + 'wait'], check=True, cwd=ROOT,
                 env=dict(os.environ, TF_CONFIG='other'))
  starts = sorted(_lines(run_dir / 'train' / 'starts'))
  assert [start.split(' ')[:3] for start in starts] == [
      [name, 'threads=3', 'TF_CONFIG=']
      for name in ('evaluator0', 'ps0', 'worker0', 'worker1')]
  assert _lines(run_dir / 'train-logs' / 'ps0.txt')[-1] == 'ps0 done'


@pytest.mark.parametrize('flags,message', [
    (['--devices=gpu'], '--devices=gpu is not a list of GPUs'),
    (['--devices=0,0'], '--devices=0,0 names one twice'),
    (['--devices=0,1', '--workers=1'], '--devices=0,1 are more than --workers'),
    (['--restarts=-1'], '--restarts=-1 is not a number'),
    (['--log_dir=/proc/x', '--run'], '--log_dir=/proc/x cannot be written'),
    (['--python=/nowhere', '--run'], '--python=/nowhere is not there'),
])
def test_local_refuses(run_dir, flags, message):
  code, out, err = _run('local_cluster', *_local(run_dir, *flags))
  assert code == 2 and not out
  assert message in err.splitlines()[-1]
  assert not (run_dir / 'train-logs').exists()


def test_local_names_a_port_in_use(run_dir):
  with socket.socket() as s:
    args = _local(run_dir, '--run')
    port = int(args[1].split('=')[1]) + 2  # Worker 1.
    s.bind(('127.0.0.1', port))
    s.listen(5)
    code, _, err = _run('local_cluster', *args)
  assert code == 2
  assert 'port %d is in use' % port in err.splitlines()[-1]
  assert not (run_dir / 'train-logs').exists()


def test_local_starts_again_what_died_until_all_have_ended(run_dir):
  train = run_dir / 'train'
  (train / 'codes.worker1').write_text('1\n139\n')
  process = _launch('local_cluster', *_local(run_dir, '--run'))
  _wait_until(lambda: len(_lines(train / 'starts')) >= 6)
  _wait_until(lambda: (train / 'pid.ps0').exists())
  os.kill(int((train / 'pid.ps0').read_text()), signal.SIGKILL)
  _wait_until(lambda: len(_lines(train / 'starts')) >= 7)
  (train / 'finish').write_text('')
  code, out, err = _finish(process)
  assert code == 0
  assert out.splitlines() == ['worker0 at work', 'worker0 done']
  assert 'worker 1 died with exit code 1: worker1: error: code 1' in err
  assert 'worker 1 died with exit code 139' in err
  assert 'ps 0 died with exit code 137' in err
  assert all(line.startswith('local_cluster: ') for line in err.splitlines())
  for name in ('ps 0', 'worker 0', 'worker 1', 'evaluator 0'):
    assert '%s ended with exit code 0' % name in err
  assert _lines(run_dir / 'train-logs' / 'worker1.txt').count(
      'worker1 at work') == 1


@pytest.mark.parametrize('codes,code', [('1\n1\n', 1), ('2\n', 2)])
def test_local_gives_up(run_dir, codes, code):
  (run_dir / 'train' / 'codes.ps0').write_text(codes)
  returned, _, err = _run('local_cluster', *_local(
      run_dir, '--run', '--restarts=1', '--no_evaluator'))
  assert returned == code
  assert err.count('starting it again, 1 of 1 times') == (code == 1)
  assert 'ending the others' in err and 'evaluator' not in err
  assert 'ps 0 ended with exit code %d' % code in err
  assert 'worker 1 ended with exit code 143' in err


def test_local_ends_the_workers_first(run_dir):
  process = _launch('local_cluster', *_local(run_dir, '--run'))
  _wait_until(lambda: len(_lines(run_dir / 'train' / 'starts')) == 4)
  os.kill(process.pid, signal.SIGTERM)
  code, _, err = _finish(process)
  assert code == 143
  assert 'stopped by TERM' in err and 'goes on from there' in err
  assert 'starting it again' not in err
  events = _lines(run_dir / 'train' / 'events')
  assert sorted(events[:3]) == ['worker0 TERM', 'worker0 saved', 'worker1 TERM']
  assert sorted(events[3:]) == ['evaluator0 TERM', 'ps0 TERM']


def test_local_goes_on_when_nobody_looks(run_dir):
  """The terminal has closed."""
  train = run_dir / 'train'
  process = _launch('local_cluster', *_local(run_dir, '--run'))
  _wait_until(lambda: len(_lines(train / 'starts')) == 4)
  process.stdout.close()
  process.stderr.close()
  os.kill(process.pid, signal.SIGHUP)
  os.kill(int((train / 'pid.worker0').read_text()), signal.SIGKILL)
  _wait_until(lambda: len(_lines(train / 'starts')) == 5)
  (train / 'finish').write_text('')
  assert process.wait(_PATIENCE_SECS) == 0


def test_local_ends_all_at_once_at_the_second_signal(run_dir):
  process = _launch('local_cluster', *_local(run_dir, '--run', '--workers=1'))
  _wait_until(lambda: len(_lines(run_dir / 'train' / 'starts')) == 3)
  os.kill(process.pid, signal.SIGINT)  # The chief waits for worker 1 for ever.
  _wait_until(lambda: _lines(run_dir / 'train' / 'events'))
  os.kill(process.pid, signal.SIGINT)
  code, _, err = _finish(process)
  assert code == 130
  assert 'worker 0 ended with exit code 137' in err
  assert 'ps 0 ended with exit code 137' in err


def test_local_trains(data, tmp_path):
  code, out, err = _run('local_cluster', *(
      ['--run', '--workers=1', '--python=' + sys.executable,
       '--port=%d' % _free_ports(2), '--', '--data_dir=' + data,
       '--train_log_dir=%s' % (tmp_path / 'train')] + TRAINING))
  assert code == 0, err
  assert 'trained to step 2' in out.splitlines()[-1]
  assert _steps(tmp_path)[-1] == 2


# -------------------------------------------------------------------- slurm


def _batch_script(run_dir, *args, **options):
  code, out, _ = _run(
      'slurm', *(['--python=%s' % options.get('python', run_dir / 'python'),
                  '--port=%d' % _free_ports(6)] + list(args) + [
                      '--', '--train_log_dir=%s' % (run_dir / 'train')]
                 + options.get('training', [])))
  assert code == 0
  return _write(run_dir / 'job.sh', out)


def test_slurm_prints_a_batch_script(tmp_path):
  code, out, _ = _run(
      'slurm', '--workers=8', '--servers=2', '--cpus_per_task=6',
      '--partition=gpu,long', '--time=8:00:00',
      '--job_name=try-1', '--python=/my/python', '--',
      "--train_log_dir=%s/it's" % tmp_path)
  assert code == 0
  directives = re.findall('^#SBATCH (.*)', out, re.MULTILINE)
  assert sorted(directives) == [
      '--cpus-per-task=6', '--gpus-per-task=1', '--job-name=try-1',
      '--ntasks=8', '--open-mode=append', '--partition=gpu,long', '--requeue',
      '--signal=TERM@120', '--time=8:00:00']
  # sbatch reads no directive below the first command.
  assert out.splitlines()[:10] == ['#!/usr/bin/env bash'] + [
      '#SBATCH ' + directive for directive in directives]
  assert not os.listdir(str(tmp_path))


@pytest.mark.parametrize('flags,message', [
    (['--time=soon'], '--time=soon is not a time'),
    (['--partition=a b'], '--partition=a b is not a name'),
    (['--job_name=a\n#SBATCH --exclusive'], 'is not a name'),
    (['--gpus_per_worker=2'], '=2 is not a number from 0 to 1'),
    (['--cpus_per_task=0'], '--cpus_per_task=0 is not a number'),
    (['--submit', '--python=/nowhere'], '--python=/nowhere is not there'),
])
def test_slurm_refuses(tools, flags, message):
  code, out, err = _run('slurm', *(flags + ['--', '--train_log_dir=x']),
                        env=tools)
  assert code == 2 and not out
  assert message in err
  assert not os.path.exists(tools['FAKE_JOB'])


def test_slurm_submits_what_it_prints(run_dir, tools):
  args = ['--python=%s' % (run_dir / 'python'), '--', '--train_log_dir=x']
  _, printed, _ = _run('slurm', *args)
  code, out, _ = _run('slurm', '--submit', *args, env=tools)
  assert code == 0 and out == 'Submitted batch job 7\n'
  with open(tools['FAKE_JOB']) as f:
    assert f.read() == printed


def test_slurm_tasks_know_where_all_are(run_dir, tools):
  (run_dir / 'train' / 'finish').write_text('')
  script = _batch_script(run_dir, '--workers=5', '--servers=2',
                         '--cpus_per_task=3')
  nodes = ['127.0.0.%d' % k for k in (1, 2, 3)]
  code, out, err = _finish(_start(script, env=dict(
      tools, FAKE_NODES=','.join(nodes), FAKE_COUNTS='2(x2),1',
      FAKE_WHERE=','.join([nodes[0]] * 2 + [nodes[1]] * 2 + [nodes[2]]),
      CUDA_VISIBLE_DEVICES='GPU-7', TF_CONFIG='other')))
  assert code == 0, err
  assert "srun {'--cpus-per-task': '3'}" in out
  with open(script) as f:
    port = int(re.search('^port=(.*)', f.read(), re.MULTILINE).group(1))
  ps_hosts = '127.0.0.1:%d,127.0.0.1:%d' % (port, port + 1)
  worker_hosts = ','.join('127.0.0.%d:%d' % (node, port + 2 + k)
                          for k, node in enumerate((1, 1, 2, 2, 3)))
  starts = sorted(_lines(run_dir / 'train' / 'starts'))
  assert [start.split(' ', 1)[0] for start in starts] == [
      'evaluator0', 'ps0', 'ps1', 'worker0', 'worker1', 'worker2', 'worker3',
      'worker4']
  for start in starts:
    assert ' TF_CONFIG= ' in start
    assert ' --ps_hosts=%s --worker_hosts=%s ' % (
        ps_hosts, worker_hosts) in start
    assert start.endswith(
        '--device_id=' + 'GPU-7' * start.startswith('worker'))
  assert _lines(run_dir / 'train-logs' / 'worker4.txt')[-1] == 'worker4 done'


@pytest.mark.parametrize('environment,message', [
    ({'FAKE_NODES': '127.0.0.1,127.0.0.2', 'FAKE_COUNTS': '1(x2)'},
     'task 1 is on 127.0.0.1; the 2 tasks are not where Slurm says: 1(x2) on'),
    ({'FAKE_NODES': '127.0.0.1', 'FAKE_COUNTS': '1'},
     'the 2 tasks are not where Slurm says: 1 on 127.0.0.1'),
    ({'CUDA_VISIBLE_DEVICES': '0,1'}, "was given the GPUs '0,1', not one"),
    ({'CUDA_VISIBLE_DEVICES': ''}, "was given the GPUs '', not one"),
])
def test_slurm_ends_where_its_nodes_are_not_as_expected(
    run_dir, tools, environment, message):
  script = _batch_script(run_dir, '--workers=2')
  code, _, err = _finish(_start(script, env=dict(
      dict(tools, CUDA_VISIBLE_DEVICES='0'), **environment)))
  assert code == 1 and message in err


def test_slurm_ends_with_the_task_that_fails(run_dir, tools):
  (run_dir / 'train' / 'codes.evaluator0').write_text('1\n')
  script = _batch_script(run_dir, '--workers=2', '--gpus_per_worker=0')
  code, _, err = _finish(_start(script, env=tools))
  assert code != 0
  assert 'evaluator0 ended with exit code 1: evaluator0: error: code 1' in err


def test_slurm_stopped_the_chief_saves_with_its_servers(run_dir, tools):
  """Whatever Slurm sends to whom: the servers and the chief's end come last."""
  script = _batch_script(run_dir, '--workers=2', '--gpus_per_worker=0')
  process = _start(script, env=tools)
  _wait_until(lambda: len(_lines(run_dir / 'train' / 'starts')) == 4)
  os.killpg(process.pid, signal.SIGTERM)
  # The batch script's bash is ended by that, as in a job.
  process.wait()
  server = int((run_dir / 'train' / 'pid.ps0').read_text())
  _wait_until(lambda: not os.path.exists('/proc/%d' % server))
  _finish(process)
  assert sorted(_lines(run_dir / 'train' / 'events')) == [
      'evaluator0 HUP', 'worker0 HUP', 'worker0 saved', 'worker1 HUP']


def test_slurm_trains(data, run_dir, tools):
  script = _batch_script(
      run_dir, '--workers=2', '--gpus_per_worker=0', '--no_evaluator',
      python=sys.executable, training=['--data_dir=' + data] + TRAINING)
  code, _, err = _finish(_start(script, env=dict(
      tools, FAKE_NODES='127.0.0.1,127.0.0.2', FAKE_COUNTS='1(x2)',
      FAKE_WHERE='127.0.0.1,127.0.0.2')))
  assert code == 0, err
  # Two workers at a time may each take a last step.
  assert re.search('trained to step [23]: ',
                   (run_dir / 'train-logs' / 'worker0.txt').read_text())
  assert 'listens at 127.0.0.2, ' in (
      run_dir / 'train-logs' / 'worker1.txt').read_text()


# --------------------------------------------------------------- kubernetes



def _manifests(settings=(), training=()):
  """'Kind name' -> object."""
  code, out, _ = _run('kubernetes', *(
      NEEDED['kubernetes'] + list(settings)
      + ['--', '--train_log_dir=runs/x/train'] + list(training)))
  assert code == 0
  objects = {}
  for item in yaml.safe_load_all(out):
    objects['%s %s' % (item['kind'], item['metadata']['name'])] = item
  return objects


def _container(job):
  container, = job['spec']['template']['spec']['containers']
  return container


def _as_run(command, environment):
  """A container's command after what Kubernetes expands in it."""
  def expand(match):
    if match.group() == '$$':
      return '$'
    return environment.get(match.group(1), match.group())
  return [re.sub(r'\$\$|\$\(([A-Za-z0-9_.-]+)\)', expand, word)
          for word in command]


def test_kubernetes_prints_plain_objects():
  objects = _manifests(['--workers=3', '--servers=2', '--gpus_per_worker=1',
                        '--name=run-1', '--namespace=true', '--port=3000',
                        '--mount=/data'])
  assert sorted(objects) == [
      'Job run-1-evaluator', 'Job run-1-ps', 'Job run-1-worker',
      'NetworkPolicy run-1', 'Service run-1']
  labels = {'app.kubernetes.io/name': 'mentormix',
            'app.kubernetes.io/instance': 'run-1'}
  for item in objects.values():
    assert item['metadata']['labels'] == labels
    assert item['metadata']['namespace'] == 'true'
  service = objects['Service run-1']
  assert service['apiVersion'] == 'v1'
  assert service['spec'] == {
      'clusterIP': 'None', 'publishNotReadyAddresses': True, 'selector': labels,
      'ports': [{'name': 'tensorflow', 'port': 3000}]}
  policy = objects['NetworkPolicy run-1']
  assert policy['apiVersion'] == 'networking.k8s.io/v1'
  assert policy['spec'] == {
      'podSelector': {'matchLabels': labels}, 'policyTypes': ['Ingress'],
      'ingress': [{'from': [{'podSelector': {'matchLabels': labels}}],
                   'ports': [{'protocol': 'TCP', 'port': 3000}]}]}
  for name, count in (('ps', 2), ('worker', 3), ('evaluator', 1)):
    job = objects['Job run-1-' + name]
    assert job['apiVersion'] == 'batch/v1'
    spec = job['spec']
    assert spec['completionMode'] == 'Indexed'
    assert spec['completions'] == spec['parallelism'] == count
    assert spec['backoffLimit'] == 6 * count
    assert spec['podFailurePolicy'] == {'rules': [
        {'action': 'FailJob', 'onExitCodes': {
            'containerName': 'mentormix', 'operator': 'In', 'values': [2]}},
        {'action': 'Ignore', 'onPodConditions': [
            {'type': 'DisruptionTarget', 'status': 'True'}]}]}
    assert spec['template']['metadata']['labels'] == labels
    pod = spec['template']['spec']
    assert pod['subdomain'] == 'run-1' and pod['restartPolicy'] == 'Never'
    assert pod['automountServiceAccountToken'] is False
    assert pod['volumes'] == [{'name': 'mentormix', 'persistentVolumeClaim': {
        'claimName': 'data'}}]
    container = _container(job)
    assert container['name'] == 'mentormix'
    assert container['image'] == 'python:3.11-slim'
    assert container['workingDir'] == '/data'
    assert container['volumeMounts'] == [
        {'name': 'mentormix', 'mountPath': '/data'}]
    assert container['env'] == [{'name': 'POD_IP', 'valueFrom': {
        'fieldRef': {'fieldPath': 'status.podIP'}}}]
    assert container.get('resources') == (
        {'limits': {'nvidia.com/gpu': 1}} if name == 'worker' else None)
    assert ('--ps_hosts=run-1-ps-0.run-1:3000,run-1-ps-1.run-1:3000'
            in container['command'])
    assert ('--worker_hosts=run-1-worker-0.run-1:3000,'
            'run-1-worker-1.run-1:3000,run-1-worker-2.run-1:3000'
            in container['command'])
    assert '--device_id=' + '0' * (name == 'worker') in container['command']


def test_kubernetes_needs_no_evaluator_gpu_or_namespace():
  objects = _manifests(['--no_evaluator', '--name=null'])
  assert sorted(objects) == ['Job null-ps', 'Job null-worker',
                             'NetworkPolicy null', 'Service null']
  for item in objects.values():
    assert 'namespace' not in item['metadata']
  assert 'resources' not in _container(objects['Job null-worker'])


AWKWARD = ['--a=it\'s a "b": [c] # d', '--b=$(POD_IP) $POD_IP $$ ${x} `id`',
           '--c=back\\slash \\n', '--d=', '--e=- x|', '--f={}: *&!%@']


@pytest.mark.parametrize('is_made', [True, False])
def test_a_container_runs_the_training_command(tmp_path, is_made):
  """On the volume; its environment is made there unless the image has one."""
  python = _write(tmp_path / '$$ "python"', (
      '#!%s\nimport json, os, signal, sys\n'
      'print(json.dumps([sys.argv[1:], os.getcwd(),\n'
      'signal.getsignal(signal.SIGTERM) == signal.SIG_IGN]))\n'
      % sys.executable))
  (tmp_path / 'scripts').mkdir()
  (tmp_path / 'scripts' / 'setup_env.sh').write_text(
      'echo set up: "$@" >&2; echo %s' % shlex.quote(python))
  objects = _manifests([] if is_made else ['--python=' + python], AWKWARD)
  environment = dict(os.environ, POD_IP='10.0.0.7', JOB_COMPLETION_INDEX='1')
  for name in ('ps', 'worker', 'evaluator'):
    container = _container(objects['Job mentormix-' + name])
    done = subprocess.run(
        _as_run(container['command'], environment), cwd=str(tmp_path),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        check=True)
    argv, directory, ignores_term = json.loads(done.stdout.decode())
    assert argv[0] == 'code/cifar_train_mentormix.py'
    assert argv[1] == '--train_log_dir=runs/x/train'
    assert argv[2:-6] == AWKWARD
    assert [arg.split('=')[0] for arg in argv[-6:]] == [
        '--ps_hosts', '--worker_hosts', '--device_id', '--job_name', '--task',
        '--bind_address']
    assert argv[-3:] == ['--job_name=' + name, '--task=1',
                         '--bind_address=10.0.0.7']
    assert directory == str(tmp_path)
    assert ignores_term == (name == 'ps')
    assert done.stderr.decode() == (
        'set up: --venv=/tmp/mentormix\n' if is_made else '')


@pytest.mark.parametrize('python,code', [('exit 3', 3), ('echo false', 1)])
def test_a_container_fails_with_its_command(tmp_path, python, code):
  (tmp_path / 'scripts').mkdir()
  (tmp_path / 'scripts' / 'setup_env.sh').write_text(python)
  environment = dict(os.environ, POD_IP='10.0.0.7', JOB_COMPLETION_INDEX='0')
  command = _as_run(_container(_manifests()['Job mentormix-ps'])['command'],
                    environment)
  assert subprocess.call(command, cwd=str(tmp_path), env=environment) == code


@pytest.mark.parametrize('flags,message', [
    (['--image='], '--image= is not an image'),
    (['--image=a b'], '--image=a b is not an image'),
    (['--image=a"\n'], 'is not an image'),
    (['--volume_claim=A'], '--volume_claim=A is not the name of a claim'),
    (['--name=1'], '--name=1 is not a name'),
    (['--name=' + 'a' * 41], 'has more than 40 characters'),
    (['--namespace=a.b'], '--namespace=a.b is not a namespace'),
    (['--mount=data'], '--mount=data is not a path'),
    (['--mount=/a:b'], '--mount=/a:b is not a path'),
    (['--gpus_per_worker=2'], '=2 is not a number from 0 to 1'),
    (['--', '--x=1\n2'], 'is not printable ASCII'),
    (['--', '--x=\u2028'], 'is not printable ASCII'),  # YAML: a new line.
    (['--python=a\tb', '--'], 'is not printable ASCII'),
    (['--', '--train_log_dir=/runs/x'],
     '--train_log_dir=/runs/x is not under --mount=/mentormix'),
])
def test_kubernetes_refuses(flags, message):
  code, out, err = _run('kubernetes', *(NEEDED['kubernetes'] + flags))
  assert code == 2 and not out
  assert message in err


def test_kubernetes_applies_what_it_prints(tools):
  args = NEEDED['kubernetes'] + ['--', '--train_log_dir=x']
  _, printed, _ = _run('kubernetes', *args)
  code, _, _ = _run('kubernetes', '--apply', *args, env=tools)
  assert code == 0
  with open(tools['FAKE_JOB']) as f:
    assert f.read() == 'apply -f -\n' + printed
