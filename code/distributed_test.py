"""Clusters of real processes on this machine, and what they live through."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import listening
from mentormix import testing

CODE = os.path.dirname(os.path.abspath(__file__))
TRAIN = os.path.join(CODE, 'cifar_train_mentormix.py')
MENTORNET = os.path.join(os.path.dirname(CODE), 'mentornet_models',
                         'mentornet_pd')
PATIENCE_SECS = 240  # For what the machine may be too busy to do sooner.
STEP = r' step (\d+)/'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A directory with a training set, and a test set beside it."""
  root = tmp_path_factory.mktemp('data')
  rng = np.random.RandomState(0)
  for name, part in (('0.4', 'train'), ('val', 'test')):
    (root / name).mkdir()
    testing.write_records(
        root / name / ('digits_%s-0' % part),
        rng.randint(0, 256, [40, 32, 32, 3]), rng.randint(10, size=40))
  return str(root / '0.4')


def _free_ports(count):
  probes = [socket.socket() for _ in range(count)]
  for probe in probes:
    probe.bind(('127.0.0.1', 0))
  ports = [probe.getsockname()[1] for probe in probes]
  for probe in probes:
    probe.close()
  return ports


class Tasks(object):
  """One server, workers, an evaluator: processes with a log each."""

  def __init__(self, data, directory, *flags, **kwargs):
    self.directory = str(directory)
    self.train_log_dir = os.path.join(self.directory, 'train')
    self.addresses = ['127.0.0.1:%d' % port for port in _free_ports(
        1 + kwargs.get('num_workers', 2))]
    self.flags = [
        '--dataset_name=digits', '--data_dir=' + data,
        '--train_log_dir=' + self.train_log_dir, '--studentnet=resnet8_thin',
        '--batch_size=4', '--trained_mentornet_dir=' + MENTORNET,
        '--device_id='] + list(flags)
    self._by_environment = kwargs.get('by_environment', False)
    self._processes = {}

  def start(self, job, task=0, *flags):
    """Starts a task; one that runs in its place has been killed before."""
    server, workers = self.addresses[0], self.addresses[1:]
    environment = dict(os.environ, OMP_NUM_THREADS='1',
                       TF_NUM_INTRAOP_THREADS='1')
    if self._by_environment:
      cluster = {'ps': [server], 'chief': workers[:1], 'worker': workers[1:]}
      if job == 'worker':
        job, task = ('worker', task - 1) if task else ('chief', 0)
      environment['TF_CONFIG'] = json.dumps(
          {'cluster': cluster, 'task': {'type': job, 'index': task}})
      if job == 'worker':
        task += 1
      where = []
      job = job.replace('chief', 'worker')
    else:
      where = ['--job_name=' + job, '--task=%d' % task, '--ps_hosts=' + server,
               '--worker_hosts=' + ','.join(workers)]
    with open(self._path(job, task), 'w') as log:
      self._processes[job, task] = subprocess.Popen(
          [sys.executable, TRAIN] + where + self.flags + list(flags),
          stdout=log, stderr=subprocess.STDOUT, env=environment)

  def _path(self, job, task):
    return os.path.join(self.directory, '%s%d.txt' % (job, task))

  def log(self, job, task=0):
    with open(self._path(job, task)) as f:
      return f.read()

  def kill(self, job, task=0, number=signal.SIGKILL):
    self._processes[job, task].send_signal(number)
    return self.exit_code(job, task)

  def exit_code(self, job, task=0):
    return self._processes[job, task].wait(PATIENCE_SECS)

  def wait_for(self, pattern, job, task=0):
    """Returns the match of `pattern` in a task's log as soon as there is one."""
    return self._wait(lambda: re.search(pattern, self.log(job, task)), pattern)

  def wait_for_checkpoint(self, after):
    """Returns the step of the newest checkpoint once it is above `after`."""
    def newest():
      step = checkpoints.last_step(self.train_log_dir)
      return step if step > after else None
    return self._wait(newest, 'a checkpoint after step %d' % after)

  def _wait(self, condition, what):
    until = time.time() + PATIENCE_SECS
    while time.time() < until:
      result = condition()
      if result is not None:
        return result
      time.sleep(0.1)
    raise AssertionError('no %s\n%s' % (what, self.every_log()))

  def every_log(self):
    return '\n'.join('%s %d:\n%s' % (task + (self.log(*task),))
                     for task in sorted(self._processes))

  def __enter__(self):
    return self

  def __exit__(self, *unused_error):
    for process in self._processes.values():
      if process.poll() is None:
        process.kill()
        process.wait()


@pytest.mark.parametrize('flags', [[], ['--sync_replicas']])
def test_a_cluster_of_one_takes_the_steps_of_one_process(data, tmp_path, flags,
                                                         one_process):
  with Tasks(data, tmp_path, '--max_number_of_steps=6', *flags,
             num_workers=1) as tasks:
    shutil.copytree(str(one_process / 'begun'), tasks.train_log_dir)
    path = os.path.join(tasks.train_log_dir, 'config.json')
    with open(path) as f:
      settings = f.read()
    with open(path, 'w') as f:  # A setting that may not change.
      f.write(settings.replace('"sync_replicas": false', '"sync_replicas": %s'
                               % json.dumps('--sync_replicas' in flags)))
    tasks.start('ps')
    tasks.start('worker')
    assert tasks.exit_code('worker') == 0, tasks.every_log()
    theirs = testing.weights(str(one_process / 'train'))
    ours = testing.weights(tasks.train_log_dir)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
      np.testing.assert_allclose(ours[name], value, 1e-5, 1e-6, err_msg=name)


@pytest.fixture(scope='module')
def one_process(data, tmp_path_factory):
  """A directory with a run `train` of 6 steps, and how it was after 3."""
  root = tmp_path_factory.mktemp('one_process')
  flags = Tasks(data, root).flags
  for steps in 3, 6:
    code, out, err = testing.run(TRAIN, root, '--max_number_of_steps=%d' % steps,
                                 *flags)
    assert code == 0, out + err
    if steps == 3:
      shutil.copytree(str(root / 'train'), str(root / 'begun'))
  return root


def test_whoever_is_killed_joins_again(data, tmp_path):
  with Tasks(data, tmp_path, '--max_number_of_steps=1000000',
             '--save_interval_secs=1', '--cluster_timeout=30') as tasks:
    # A worker comes first: it waits, and says for whom.
    tasks.start('worker', 1)
    tasks.wait_for('waiting for ps 0 at ' + tasks.addresses[0], 'worker', 1)
    assert 'waiting for the chief at ' + tasks.addresses[1] in tasks.log(
        'worker', 1)
    tasks.start('ps')
    tasks.start('worker', 0)
    tasks.wait_for(STEP, 'worker', 1)

    # A worker is killed: the others go on; it joins again, with other settings
    # it does not.
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

    # The chief is killed: it goes on from its last checkpoint.
    tasks.kill('worker', 0)
    saved = checkpoints.last_step(tasks.train_log_dir)
    tasks.start('worker', 0)
    tasks.wait_for_checkpoint(saved)
    assert 'from step %d' % saved in tasks.log('worker', 0)
    tasks.wait_for(STEP, 'worker', 0)

    # The server never comes back: nobody hangs.
    tasks.kill('ps')
    for task in 0, 1:
      assert tasks.exit_code('worker', task) == 1
      assert re.search(
          r'error: ps 0 at %s did not answer for 30 seconds \(--cluster_timeout'
          r'\); start what is missing' % tasks.addresses[0],
          tasks.log('worker', task))
    assert 'Traceback' not in tasks.every_log()


@pytest.mark.parametrize('flags,by_environment,steps', [
    (['--max_number_of_steps=60'], True, (60, 61)),
    (['--max_number_of_steps=60', '--sync_replicas'], False, (60,))])
def test_the_end_of_training_ends_every_task(data, tmp_path, flags,
                                             by_environment, steps):
  flags += ['--save_interval_secs=5']
  with Tasks(data, tmp_path, *flags, by_environment=by_environment) as tasks:
    for job, task in ('ps', 0), ('worker', 0), ('evaluator', 0):
      tasks.start(job, task)
    if '--sync_replicas' in flags:  # No step without all.
      tasks.wait_for('step 0: top-1', 'evaluator')
      assert not re.search(STEP, tasks.log('worker', 0))
      tasks.start('worker', 1)
      tasks.wait_for(STEP, 'worker', 1)
      tasks.kill('worker', 1)
    tasks.start('worker', 1)
    for job, task in (('worker', 1), ('worker', 0), ('ps', 0),
                      ('evaluator', 0)):
      assert tasks.exit_code(job, task) == 0, tasks.every_log()
    assert testing.weights(tasks.train_log_dir)['global_step'] in steps
    assert 'training has ended' in tasks.log('ps')
    with open(os.path.join(tasks.directory, 'eval', 'results.csv')) as f:
      assert int(f.read().splitlines()[-1].split(',')[0]) in steps
    assert 'Traceback' not in tasks.every_log()
    saved = config_lib.load(tasks.train_log_dir)
    assert saved['sync_replicas'] == ('--sync_replicas' in flags)

    # Once more, as after a restart of all: there is nothing to do.
    for job, task in ('ps', 0), ('worker', 0):
      tasks.start(job, task)
    assert tasks.exit_code('worker', 0) == 0
    assert tasks.exit_code('ps') == 0
    assert 'is already at step' in tasks.log('worker', 0)


def test_a_signal_ends_a_synchronous_chief_that_waits(data, tmp_path):
  with Tasks(data, tmp_path, '--max_number_of_steps=1000000', '--sync_replicas',
             '--save_interval_secs=1000') as tasks:
    for job, task in ('ps', 0), ('worker', 0), ('worker', 1):
      tasks.start(job, task)
    tasks.wait_for(STEP, 'worker', 1)
    tasks.kill('worker', 1)
    assert tasks.kill('worker', 0, signal.SIGTERM) == 143
    assert 'checkpoint saved' in tasks.log('worker', 0)
    # All again, with another end, beside the server that has run on.
    tasks.flags.append('--max_number_of_steps=%d' % (
        checkpoints.last_step(tasks.train_log_dir) + 5))
    tasks.start('worker', 1)
    tasks.start('worker', 0)
    for job, task in ('worker', 1), ('worker', 0), ('ps', 0):
      assert tasks.exit_code(job, task) == 0, tasks.every_log()


def test_signals_end_a_task_and_servers_listen_where_they_are_told(
    data, tmp_path):
  with Tasks(data, tmp_path, '--max_number_of_steps=1000000') as tasks:
    tasks.start('worker', 1)
    tasks.wait_for('worker 1 listens at 127.0.0.1', 'worker', 1)
    port = int(tasks.addresses[2].rpartition(':')[2])
    assert listening.listening_at(port) == {
        bytes(10) + b'\xff\xff' + socket.inet_aton('127.0.0.1')}
    tasks.wait_for('waiting for ps 0', 'worker', 1)
    assert tasks.kill('worker', 1, signal.SIGTERM) == 143
    tasks.start('ps')
    tasks.start('worker', 0)
    tasks.start('worker', 1)
    tasks.wait_for(STEP, 'worker', 1)
    assert tasks.kill('worker', 1, signal.SIGTERM) == 143
    assert 'stopped by SIGTERM; the same command joins again' in tasks.log(
        'worker', 1)
    assert tasks.kill('worker', 0, signal.SIGTERM) == 143
    assert checkpoints.last_step(tasks.train_log_dir) > 0
    assert 'checkpoint saved' in tasks.log('worker', 0)
    assert tasks.kill('ps', number=signal.SIGTERM) == -signal.SIGTERM


def test_servers_that_run_already(data, tmp_path):
  """The published flags --master, --ps_tasks and --task."""
  server, worker = ['127.0.0.1:%d' % port for port in _free_ports(2)]
  program = ('import sys; from mentormix.runtime import tf; tf.train.Server('
             '{"ps": ["%s"], "worker": ["%s"]}, sys.argv[1], 0).join()'
             % (server, worker))
  environment = dict(os.environ, PYTHONPATH=CODE)
  processes = [subprocess.Popen([sys.executable, '-c', program, job],
                                env=environment) for job in ('ps', 'worker')]
  try:
    code, out, err = testing.run(
        TRAIN, tmp_path, '--dataset_name=digits', '--data_dir=' + data,
        '--train_log_dir=train', '--studentnet=resnet8_thin', '--batch_size=4',
        '--method=cross_entropy', '--device_id=', '--max_number_of_steps=3',
        '--master=grpc://' + worker, '--ps_tasks=1')
    assert code == 0, out + err
    assert testing.weights(tmp_path / 'train')['global_step'] == 3
  finally:
    for process in processes:
      process.kill()
      process.wait()


@pytest.mark.parametrize('flags,line', [
    (['--job_name=worker', '--worker_hosts=127.0.0.1:2222'],
     '--ps_hosts= must be given with --job_name=worker'),
    (['--job_name=boss', '--ps_hosts=a:1', '--worker_hosts=a:2'],
     '--job_name=boss must be worker, ps or evaluator'),
    (['--job_name=worker', '--ps_hosts=a:1', '--worker_hosts=a:2', '--task=1'],
     '--task=1 must be below 1, the number of --worker_hosts'),
    (['--job_name=ps', '--ps_hosts=192.0.2.77:1234',
      '--worker_hosts=127.0.0.1:2222'], 'the address of ps 0'),
    (['--job_name=ps', '--ps_hosts=no.such.host.invalid:1234',
      '--worker_hosts=127.0.0.1:2222'], 'no.such.host.invalid is unknown'),
    (['--job_name=ps', '--ps_hosts=localhost:1234',
      '--worker_hosts=192.0.2.77:2222'],
     'localhost:1234, the address of ps 0, is 127.0.0.1 on this machine, where '
     'others cannot reach it; give --bind_address=ADDRESS'),
    (['--task=1'], '--job_name= must be given'),
    (['--sync_replicas'], '--sync_replicas needs a cluster'),
    (['--sync_replicas', '--master=grpc://a:1'],
     'is not known; give --ps_hosts and --worker_hosts instead'),
    (['--cluster_timeout=-1'], '--cluster_timeout=-1 must be'),
    (['--master=grpc://a:1', '--job_name=ps', '--ps_hosts=a:1',
      '--worker_hosts=a:2'], 'give one of them')])
def test_slips(data, tmp_path, flags, line):
  code, out, err = testing.run(
      TRAIN, tmp_path, '--dataset_name=digits', '--data_dir=' + data,
      '--train_log_dir=train', '--method=cross_entropy', '--device_id=', *flags)
  assert code == 2, out + err
  assert line in err and len(err.splitlines()) == 1, err
