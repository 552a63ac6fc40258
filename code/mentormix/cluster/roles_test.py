"""TODO code/mentormix/cluster/roles_test.py."""
import contextlib
import json
import socket
import threading
import time

import pytest

from mentormix.cluster import roles
from mentormix.cluster import watch as watch_lib
from mentormix import command
from mentormix import config as config_lib
from mentormix.messages import UserError

HOSTS = dict(ps_hosts='a:1,b:1', worker_hosts='c:1,d:1,e:1')
TF_CONFIG = {'cluster': {'ps': ['a:1'], 'chief': ['c:1'], 'worker': ['d:1']},
             'task': {'type': 'worker', 'index': 0}}


def find(environment=None, **settings):
  if environment is not None:
    environment = {'TF_CONFIG': environment if isinstance(environment, str)
                                else json.dumps(environment)}
  return roles.find(config_lib.TrainConfig(**settings), environment or {})


def test_a_process_without_a_cluster_is_the_chief():
  alone = find()
  assert alone == roles.ALONE and alone.is_chief
  assert (alone.num_workers, alone.worker, alone.device) == (1, 0, '')
  assert not alone.needed()
  for environment in ('{}', {'cluster': {'worker': ['c:1']}},
                      {'cluster': {'chief': ['c:1']},
                       'task': {'type': 'chief', 'index': 0}}):
    assert find(environment) == roles.ALONE
  # One of several clients of servers that run elsewhere.
  assert not find(master='grpc://a:1', ps_tasks=1, task=2).is_chief


def test_tasks_of_host_lists():
  chief = find(job_name='worker', **HOSTS)
  assert chief.is_chief and chief.address == 'c:1'
  assert chief.device == '/job:worker/task:0'
  assert dict(chief.needed()) == {'ps 0': 'a:1', 'ps 1': 'b:1'}
  worker = find(job_name='worker', task=2, **HOSTS)
  assert (worker.is_chief, worker.worker, worker.num_workers) == (False, 2, 3)
  assert dict(worker.needed()) == {
      'the chief': 'c:1', 'ps 0': 'a:1', 'ps 1': 'b:1'}
  server = find(job_name='ps', task=1, **HOSTS)
  assert not server.is_chief and server.address == 'b:1'
  assert dict(server.needed()) == {'the chief': 'c:1'}
  assert find(job_name='evaluator').job == 'evaluator'


@pytest.mark.parametrize('job,index,worker', [
    ('chief', 0, 0), ('worker', 0, 1), ('ps', 0, None), ('evaluator', 0, None)])
def test_tasks_of_tf_config(job, index, worker):
  found = find(dict(TF_CONFIG, task={'type': job, 'index': index}))
  assert (found.job, found.task) == (job, index)
  assert found.workers == ('c:1', 'd:1')
  assert found.is_chief == (job == 'chief')
  if worker is not None:
    assert found.worker == worker
    assert found.device == f'/job:{job}/task:{index}'


@pytest.mark.parametrize('changes,said', [
    (dict(ps_hosts='a'), "--ps_hosts=a: 'a' is not an address"),
    (dict(ps_hosts='a:0'), 'is not an address'),
    (dict(ps_hosts='a:65536'), 'is not an address'),
    (dict(ps_hosts='a:1,'), "'' is not an address"),
    (dict(ps_hosts='a b:1'), 'is not an address'),
    (dict(ps_hosts='c:1'), 'c:1 stands for two tasks'),
    (dict(task=3), '--task=3 must be below 3, the number of --worker_hosts'),
    (dict(job_name='ps', task=2), 'must be below 2, the number of --ps_hosts'),
    (dict(job_name='chief'), '--job_name=chief must be worker, ps or evaluator'),
    (dict(worker_hosts=''), '--worker_hosts= must be given'),
    (dict(master='grpc://a:1'), '--master=grpc://a:1 is for servers that run'),
    (dict(ps_tasks=1), '--ps_tasks=1 is for servers that run')])
def test_slips_in_host_lists(changes, said):
  settings = dict(HOSTS, job_name='worker')
  settings.update(changes)
  with pytest.raises(UserError) as error:
    find(**settings)
  assert said in str(error.value)


@pytest.mark.parametrize('environment,said', [
    ('{', 'is not JSON'),
    ('[]', 'is not a JSON object'),
    ('[' * 100000, 'is not JSON'),
    ({'cluster': []}, None),
    ({'cluster': ['a:1']}, 'needs objects as cluster and task'),
    (dict(TF_CONFIG, task={'type': 'boss'}), 'has the task {"type": "boss"}'),
    (dict(TF_CONFIG, task={'type': 'worker', 'index': True}), 'has the task'),
    (dict(TF_CONFIG, task={'type': ['worker']}), 'has the task'),
    (dict(TF_CONFIG, task={'type': 'worker', 'index': 1}),
     'has 1 addresses of worker, so none for task 1'),
    ({'cluster': {'boss': ['a:1']}}, 'has the job boss'),
    ({'cluster': {'ps': 'a:1'}}, 'which is not a list of host:port'),
    ({'cluster': {'ps': [1]}}, 'which is not a list of host:port'),
    ({'cluster': {'ps': ['a']}}, "'a' is not an address"),
    ({'task': {'type': 'ps', 'index': 0}}, 'has 0 addresses of ps'),
    ({'cluster': {'worker': ['a:1', 'b:1']}}, 'needs a ps'),
    ({'cluster': {'chief': ['a:1', 'b:1']}}, 'more than one chief'),
    ({'cluster': {'ps': ['a:1']}, 'task': {'type': 'ps', 'index': 0}},
     'needs a worker')], ids=lambda value: str(value)[:40])
def test_slips_in_tf_config(environment, said):
  if said is None:
    assert find(environment) == roles.ALONE
    return
  with pytest.raises(UserError) as error:
    find(environment)
  assert said in str(error.value)


@pytest.mark.parametrize('settings,said', [
    (dict(task=1), '--job_name= must be given'),
    (dict(sync_replicas=True, master='grpc://a:1'),
     'is not known; give --ps_hosts and --worker_hosts instead'),
    (dict(cluster_timeout=-1), '--cluster_timeout=-1 must be from 0')])
def test_slips_in_settings(settings, said):
  with pytest.raises(UserError) as error:
    config_lib.validate_cluster(config_lib.TrainConfig(**settings))
  assert said in str(error.value)


def test_flags_and_environment_exclude_each_other():
  with pytest.raises(UserError, match='--ps_hosts and .* TF_CONFIG both'):
    find(TF_CONFIG, job_name='worker', **HOSTS)
  with pytest.raises(UserError, match='--task=1: .* says which task'):
    find(TF_CONFIG, task=1)


@pytest.mark.parametrize('interfaces,is_harmless', [
    (['lo'], True), ([], True), (['lo', 'eth0'], False), (['eth0'], False),
    (['lo0'], False), (['lo', 'tunl0'], False)])
def test_a_port_opens_only_where_nobody_else_can_reach_it(
    interfaces, is_harmless):
  roles.check_exposure(True, interfaces)
  if is_harmless:
    roles.check_exposure(False, interfaces)
    return
  with pytest.raises(UserError) as error:
    roles.check_exposure(False, interfaces)
  line = str(error.value)
  for reason in ('no password', 'executes what it is sent', 'every interface',
                 'give --listen_on_all_interfaces'):
    assert reason in line


def test_the_interfaces_are_those_of_the_process(monkeypatch):
  monkeypatch.setattr(socket, 'if_nameindex', lambda: [(1, 'lo')])
  roles.check_exposure(False)
  monkeypatch.setattr(socket, 'if_nameindex', lambda: [(1, 'lo'), (2, 'eth0')])
  with pytest.raises(UserError, match='--listen_on_all_interfaces'):
    roles.check_exposure(False)


class Listener:
  """Answers at an address, while it is open."""

  def __init__(self):
    self._port = 0
    self.open()

  def open(self):
    self._server = socket.socket()
    self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    self._server.bind(('127.0.0.1', self._port))
    self._server.listen(100)
    self._server.settimeout(0.05)
    self._port = self._server.getsockname()[1]
    self.address = f'127.0.0.1:{self._port}'
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._accept)
    self._thread.start()

  def _accept(self):
    while not self._closed.is_set():
      with contextlib.suppress(OSError):
        self._server.accept()[0].close()

  def close(self):
    self._closed.set()
    self._thread.join()
    self._server.close()


@pytest.fixture
def listener():
  opened = Listener()
  yield opened
  opened.close()


def test_answers(listener):
  assert watch_lib.answers(listener.address)
  listener.close()
  assert not watch_lib.answers(listener.address)
  assert not watch_lib.answers('no.such.host.invalid:1')
  assert not watch_lib.answers('a..b:1')


@pytest.fixture
def aborted(monkeypatch):
  """What the process would have been ended with."""
  lines = []
  monkeypatch.setattr(watch_lib, '_LOOK_SECS', 0.01)
  monkeypatch.setattr(watch_lib, '_SAY_AFTER_SECS', 0)
  monkeypatch.setattr(command, 'abort', lines.append)
  return lines


def _until(condition):
  until = time.time() + 60
  while not condition():
    assert time.time() < until
    time.sleep(0.01)


def _cluster(server, **jobs):
  return roles.Cluster(
      dict({'ps': (server.address,), 'worker': ('127.0.0.1:1',)}, **jobs),
      'worker', 0)


def test_a_watch_says_who_does_not_answer_and_gives_up(
    listener, aborted, capsys):
  cluster = _cluster(listener)
  watch = watch_lib.Watch(cluster, 1000)
  watch.wait(lambda: False)
  listener.close()
  lines = []

  def said(text):
    lines.append(capsys.readouterr().out)
    return text in ''.join(lines)
  _until(lambda: said('waiting for ps 0 at ' + cluster.jobs['ps'][0]))
  assert not aborted
  watch.end()
  watch = watch_lib.Watch(cluster, 1)
  _until(lambda: aborted)
  watch.end()
  assert aborted[0].startswith(f'ps 0 at {listener.address} did not answer for '
                               '1 seconds (--cluster_timeout)')


def test_a_watch_gives_up_without_steps_once_there_can_be_some(
    listener, aborted):
  watch = watch_lib.Watch(_cluster(listener), 1)
  time.sleep(2)  # As a server, or a worker that still reads.
  assert not aborted
  watch.wait(lambda: False)
  _until(lambda: aborted)
  assert aborted[0].startswith('no step was finished for 1 seconds')
  watch.end()


def test_a_synchronous_chief_names_the_worker_that_a_step_waits_for(
    listener, aborted, capsys, monkeypatch):
  monkeypatch.setattr(watch_lib, '_SAY_SECS', 0.1)
  cluster = _cluster(listener, chief=('127.0.0.1:3',), worker=(
      listener.address, '127.0.0.1:2'))._replace(job='chief')
  watch = watch_lib.Watch(cluster, 1, is_sync=True)
  watch.wait(lambda: False)
  _until(lambda: aborted)
  watch.end()
  missing = ', worker 1 at 127.0.0.1:2 does not answer'
  assert f'no step for 0 seconds{missing}\n' in capsys.readouterr().out
  assert aborted[0].startswith(
      f'no step was finished for 1 seconds{missing} (--cluster_timeout)')


def test_waiting_ends_with_an_answer_or_a_signal(listener, aborted):
  cluster = _cluster(listener, ps=('127.0.0.1:1',))
  watch = watch_lib.Watch(cluster, 0)
  watch.wait(lambda: True)  # Although nobody answers.
  watch.end()
  listener.close()
  watch = watch_lib.Watch(_cluster(listener), 0)
  waiting = threading.Thread(target=watch.wait, args=(lambda: False,))
  waiting.start()
  listener.open()
  waiting.join(60)
  assert not waiting.is_alive()
  listener.close()
  watch.wait_until_gone([listener.address], lambda: False)  # It is.
  listener.open()
  watch.wait_until_gone([listener.address], lambda: True)
  watch.end()
