"""Clusters of real processes on this machine, and the faults they survive.

They run in a network namespace of their own or, where the system forbids that,
with --listen_on_all_interfaces.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing
from unittest import mock

import cifar_train_mentormix
import numpy as np
import pytest

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import testing

CODE = os.path.dirname(os.path.abspath(__file__))
TRAIN = os.path.join(CODE, 'cifar_train_mentormix.py')
PATIENCE_SECS = 240  # A busy machine takes long.
STEP = r' step (\d+)/'
END = 1000000  # A step that no test reaches.
THREADS = dict(OMP_NUM_THREADS='1', TF_NUM_INTRAOP_THREADS='1')


@pytest.fixture(scope='module')
def noise(tmp_path_factory):
  """A directory with a training set of noise, 0.4, and a test set, val."""
  root = tmp_path_factory.mktemp('data')
  rng = np.random.RandomState(0)
  for name, part in (('0.4', 'train'), ('val', 'test')):
    (root / name).mkdir()
    testing.write_records(
        root / name / f'digits_{part}-0',
        rng.randint(0, 256, [40, 32, 32, 3]), rng.randint(10, size=40))
  return str(root)


def _free_addresses(count):
  with contextlib.ExitStack() as stack:
    probes = [stack.enter_context(socket.socket()) for _ in range(count)]
    for probe in probes:
      probe.bind(('127.0.0.1', 0))
    return [f'127.0.0.1:{probe.getsockname()[1]}' for probe in probes]


class Place(typing.NamedTuple):
  """Where the tasks run."""
  prefix: typing.List[str]  # What a command begins with to run there.
  flags: typing.List[str]  # What a task needs there.


# Brings loopback up (SIOCSIFFLAGS with IFF_UP), then waits for its stdin's end.
_HOLD = """import fcntl, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH22x', b'lo', 1))
print('up', flush=True)
sys.stdin.read()"""


@pytest.fixture(scope='module')
def place():
  """A `Place`: a network namespace with loopback only, if possible."""
  unshare = ['unshare', '--user', '--map-root-user', '--net', sys.executable,
             '-c', _HOLD]
  holder = None
  with contextlib.suppress(OSError):
    holder = subprocess.Popen(unshare, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
  if holder and holder.stdout.readline():
    yield Place(['nsenter', '--preserve-credentials', '--user', '--net',
                 f'--target={holder.pid}'], [])
  else:
    yield Place([], ['--listen_on_all_interfaces'])
  if holder:
    holder.communicate()


class Tasks:
  """One server, workers, an evaluator: processes with a log each."""

  def __init__(self, place, data, directory, *flags, num_workers=2,
               by_environment=False):
    self.directory = str(directory)
    self.train_log_dir = os.path.join(self.directory, 'train')
    self.addresses = _free_addresses(1 + num_workers)
    self.flags = testing.to_flags(**testing.train_settings(
        data, train_log_dir=self.train_log_dir, batch_size=4,
        max_number_of_steps=END)) + place.flags + list(flags)
    self._prefix = place.prefix
    self._by_environment = by_environment
    self._processes = {}

  def start(self, job, task=0, *flags):
    """Starts a task; an earlier process of it must have been killed."""
    server, workers = self.addresses[0], self.addresses[1:]
    environment = dict(os.environ, **THREADS)
    where = [f'--job_name={job}', f'--task={task}', f'--ps_hosts={server}',
             '--worker_hosts=' + ','.join(workers)]
    if self._by_environment:  # Worker 0 is the job `chief` there.
      where = []
      role = {'type': job, 'index': task}
      if job == 'worker':
        role = ({'type': 'worker', 'index': task - 1} if task
                else {'type': 'chief', 'index': 0})
      environment['TF_CONFIG'] = json.dumps({'task': role, 'cluster': {
          'ps': [server], 'chief': workers[:1], 'worker': workers[1:]}})
    with open(self._path(job, task), 'w') as log:
      self._processes[job, task] = subprocess.Popen(
          [*self._prefix, sys.executable, TRAIN, *where, *self.flags, *flags],
          stdout=log, stderr=subprocess.STDOUT, env=environment)

  def _path(self, job, task):
    return os.path.join(self.directory, f'{job}{task}.txt')

  def log(self, job, task=0):
    with open(self._path(job, task)) as f:
      return f.read()

  def kill(self, job, task=0, number=signal.SIGKILL):
    self._processes[job, task].send_signal(number)
    return self.exit_code(job, task)

  def exit_code(self, job, task=0):
    return self._processes[job, task].wait(PATIENCE_SECS)

  def assert_finished(self, *tasks):
    """Waits until these (job, task) have ended, each with exit code 0."""
    for job, task in tasks:
      assert self.exit_code(job, task) == 0, self.every_log()

  def wait_for(self, pattern, job, task=0):
    """Returns the match of `pattern` in a task's log once there is one."""
    return self._wait(lambda: re.search(pattern, self.log(job, task)), pattern)

  def wait_for_checkpoint(self, after):
    """Returns the step of the newest checkpoint once it is above `after`."""
    def newest():
      step = checkpoints.last_step(self.train_log_dir)
      return step if step > after else None
    return self._wait(newest, f'a checkpoint after step {after}')

  def _wait(self, condition, what):
    until = time.time() + PATIENCE_SECS
    while time.time() < until:
      result = condition()
      if result is not None:
        return result
      time.sleep(0.1)
    raise AssertionError(f'no {what}\n{self.every_log()}')

  def every_log(self):
    return '\n'.join(f'{job} {task}:\n{self.log(job, task)}'
                     for job, task in sorted(self._processes))

  def __enter__(self):
    return self

  def __exit__(self, *unused_error):
    for process in self._processes.values():
      process.kill()
      process.wait()


@pytest.fixture(scope='module')
def one_process(place, noise, tmp_path_factory):
  """A directory with a run `train` of 6 steps, and how it was after 3."""
  root = tmp_path_factory.mktemp('one_process')
  flags = Tasks(place, noise, root).flags
  for steps in 3, 6:
    with mock.patch.dict(os.environ, THREADS):
      code, out, err = testing.run(
          TRAIN, root, *flags, f'--max_number_of_steps={steps}')
    assert code == 0, out + err
    if steps == 3:
      shutil.copytree(str(root / 'train'), str(root / 'begun'))
  return root


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']])
def test_a_cluster_of_one_takes_the_steps_of_one_process(
    place, noise, tmp_path, flags, one_process):
  with Tasks(place, noise, tmp_path, '--max_number_of_steps=6', *flags,
             num_workers=1) as tasks:
    shutil.copytree(str(one_process / 'begun'), tasks.train_log_dir)
    path = tmp_path / 'train' / 'config.json'
    path.write_text(path.read_text().replace(  # A setting that may not change.
        '"sync_replicas": false',
        f'"sync_replicas": {json.dumps("--sync_replicas" in flags)}'))
    tasks.start('ps')
    tasks.start('worker')
    tasks.assert_finished(('worker', 0))
    theirs = testing.weights(str(one_process / 'train'))
    ours = testing.weights(tasks.train_log_dir)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
      np.testing.assert_allclose(ours[name], value, 1e-5, 1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('flags', [[], ['--sync_replicas']])
def test_a_cluster_starts_with_a_checkpoint(place, noise, tmp_path, flags,
                                            one_process):
  """No worker takes a step from other weights; microbatches work there, too."""
  with Tasks(place, noise, tmp_path, '--max_number_of_steps=8', *flags,
             '--microbatches=2', '--learning_rate=0.001',
             f'--checkpoint_path={one_process / "begun"}') as tasks:
    tasks.start('ps')
    tasks.start('worker', 1)
    tasks.start('worker', 0)
    tasks.assert_finished(('worker', 0), ('worker', 1), ('ps', 0))
    theirs = testing.weights(str(one_process / 'begun'))
    start = testing.weights(os.path.join(tasks.train_log_dir, 'model.ckpt-0'))
    end = testing.weights(tasks.train_log_dir)
    assert 'starting with 37 variables' in tasks.log('worker', 0)
    assert 'starting with' not in tasks.log('worker', 1)
  assert end['global_step'] >= 8
  trained = [name for name in start if name + '/Momentum' in start]
  assert len(trained) == 23
  for name in trained:
    # Asynchronous workers may have taken steps before the first save.
    tolerance = 0 if flags else 0.1
    np.testing.assert_allclose(start[name], theirs[name], 0, tolerance)
    assert np.isfinite(end[name]).all() and (end[name] != theirs[name]).any()


@pytest.mark.slow
def test_whoever_is_killed_joins_again(place, noise, tmp_path):
  with Tasks(place, noise, tmp_path, '--save_interval_secs=1',
             '--cluster_timeout=90') as tasks:
    # A worker comes first: it waits, and says for whom.
    tasks.start('worker', 1)
    tasks.wait_for('waiting for ps 0 at ' + tasks.addresses[0], 'worker', 1)
    assert 'waiting for the chief at ' + tasks.addresses[1] in tasks.log(
        'worker', 1)
    tasks.start('ps')
    tasks.start('worker', 0)
    tasks.wait_for(STEP, 'worker', 1)

    # A worker is killed: the others continue. It joins again, but not with
    # other settings.
    tasks.kill('worker', 1)
    step = tasks.wait_for_checkpoint(tasks.wait_for_checkpoint(0))
    tasks.start('worker', 1, '--mixup_alpha=3')
    assert tasks.exit_code('worker', 1) == 2
    assert ('worker 1 trains something else than the chief: mixup_alpha is 8.0 '
            'there, 3.0 here; give all tasks the same flags'
            in tasks.log('worker', 1))
    tasks.start('worker', 1)
    assert int(tasks.wait_for(STEP, 'worker', 1).group(1)) > step

    # The server is killed: it gets the last checkpoint back from the chief.
    tasks.kill('ps')
    saved = checkpoints.last_step(tasks.train_log_dir)
    tasks.start('ps')
    tasks.wait_for_checkpoint(saved)

    # The chief is killed: it resumes from its last checkpoint.
    tasks.kill('worker', 0)
    saved = checkpoints.last_step(tasks.train_log_dir)
    tasks.start('worker', 0)
    tasks.wait_for_checkpoint(saved)
    assert f'from step {saved}' in tasks.log('worker', 0)
    tasks.wait_for(STEP, 'worker', 0)

    # The server never comes back: nobody hangs.
    tasks.kill('ps')
    for task in 0, 1:
      assert tasks.exit_code('worker', task) == 1
      assert re.search(
          rf'error: ps 0 at {tasks.addresses[0]} did not answer for 90 seconds '
          r'\(--cluster_timeout\); start what is missing',
          tasks.log('worker', task))
    assert 'Traceback' not in tasks.every_log()


@pytest.mark.slow
@pytest.mark.parametrize('flags,by_environment,steps', [
    (['--max_number_of_steps=60'], True, (60, 61)),
    (['--max_number_of_steps=60', '--sync_replicas'], False, (60,))])
def test_the_end_of_training_ends_every_task(
    place, noise, tmp_path, flags, by_environment, steps):
  with Tasks(place, noise, tmp_path, '--save_interval_secs=5', *flags,
             by_environment=by_environment) as tasks:
    for job in 'ps', 'worker', 'evaluator':
      tasks.start(job)
    if '--sync_replicas' in flags:  # No step without all.
      tasks.wait_for('step 0: top-1', 'evaluator')
      assert not re.search(STEP, tasks.log('worker', 0))
      tasks.start('worker', 1)
      tasks.wait_for(STEP, 'worker', 1)
      tasks.kill('worker', 1)
    tasks.start('worker', 1)
    tasks.assert_finished(('worker', 1), ('worker', 0), ('ps', 0),
                          ('evaluator', 0))
    assert testing.weights(tasks.train_log_dir)['global_step'] in steps
    assert 'training has ended' in tasks.log('ps')
    rows = (tmp_path / 'eval' / 'results.csv').read_text().splitlines()
    assert int(rows[-1].split(',')[0]) in steps
    assert 'Traceback' not in tasks.every_log()
    saved = config_lib.load(tasks.train_log_dir)
    assert saved['sync_replicas'] == ('--sync_replicas' in flags)

    # All restart: there is nothing to do.
    tasks.start('ps')
    tasks.start('worker')
    tasks.assert_finished(('worker', 0), ('ps', 0))
    assert 'is already at step' in tasks.log('worker', 0)


@pytest.mark.slow
def test_a_signal_ends_a_synchronous_chief_that_waits(place, noise, tmp_path):
  with Tasks(place, noise, tmp_path, '--sync_replicas',
             '--save_interval_secs=1000') as tasks:
    for job, task in ('ps', 0), ('worker', 0), ('worker', 1):
      tasks.start(job, task)
    tasks.wait_for(STEP, 'worker', 1)
    tasks.kill('worker', 1)
    assert tasks.kill('worker', 0, signal.SIGTERM) == 143
    assert 'checkpoint saved' in tasks.log('worker', 0)
    # Both restart, with another end, beside the same server.
    end = checkpoints.last_step(tasks.train_log_dir) + 5
    tasks.flags.append(f'--max_number_of_steps={end}')
    tasks.start('worker', 1)
    tasks.start('worker', 0)
    tasks.assert_finished(('worker', 1), ('worker', 0), ('ps', 0))


@pytest.mark.slow
def test_signals_end_a_task(place, noise, tmp_path):
  with Tasks(place, noise, tmp_path) as tasks:
    tasks.start('worker', 1)
    tasks.wait_for('waiting for ps 0', 'worker', 1)
    assert tasks.kill('worker', 1, signal.SIGTERM) == 143
    tasks.start('ps')
    tasks.start('worker', 0)
    tasks.start('worker', 1)
    tasks.wait_for(STEP, 'worker', 1)
    assert tasks.kill('worker', 1, signal.SIGTERM) == 143
    assert 'stopped by SIGTERM; rerun the same command to join' in tasks.log(
        'worker', 1)
    assert tasks.kill('worker', 0, signal.SIGTERM) == 143
    assert checkpoints.last_step(tasks.train_log_dir) > 0
    assert 'checkpoint saved' in tasks.log('worker', 0)
    assert tasks.kill('ps', number=signal.SIGTERM) == -signal.SIGTERM


@pytest.mark.slow
def test_servers_that_run_already(place, noise, tmp_path):
  """The published flags --master, --ps_tasks and --task."""
  server, worker = _free_addresses(2)
  program = ('import sys; from mentormix.runtime import tf; tf.train.Server('
             f'{{"ps": ["{server}"], "worker": ["{worker}"]}}, sys.argv[1], 0'
             ').join()')
  python = [*place.prefix, sys.executable]
  processes = [subprocess.Popen([*python, '-c', program, job], cwd=CODE)
               for job in ('ps', 'worker')]
  try:
    subprocess.check_call([*python, TRAIN, *testing.to_flags(
        **testing.train_settings(noise, train_log_dir=tmp_path, batch_size=4,
                                 master='grpc://' + worker, ps_tasks=1))])
    assert testing.weights(tmp_path)['global_step'] == 3
  finally:
    for process in processes:
      process.kill()
      process.wait()


def test_a_task_refuses_to_start_where_others_could_reach_it(
    monkeypatch, tmp_path):
  monkeypatch.setattr(socket, 'if_nameindex', lambda: [(1, 'lo'), (2, 'eth0')])
  for job in 'ps', 'worker':
    finished = testing.run_command(
        cifar_train_mentormix, '--job_name=' + job, '--ps_hosts=127.0.0.1:2222',
        '--worker_hosts=127.0.0.1:2223', '--data_dir=data',
        f'--train_log_dir={tmp_path}/train')
    testing.assert_one_line(
        finished, 2, 'has no password, executes what it is sent',
        '--listen_on_all_interfaces')
    assert not finished.out and not os.listdir(str(tmp_path))
