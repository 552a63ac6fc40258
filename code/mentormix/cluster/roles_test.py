"""Which cluster the flags or TF_CONFIG describe, and where a port may open."""
import json
import socket

import pytest

from mentormix import config as config_lib
from mentormix.cluster import roles
from mentormix.messages import UserError

HOSTS = dict(ps_hosts='a:1,b:1', worker_hosts='c:1,d:1,e:1')
TF_CONFIG = {'cluster': {'ps': ['a:1'], 'chief': ['c:1'], 'worker': ['d:1']},
             'task': {'type': 'worker', 'index': 0}}


def find(environment=None, **settings):
  if environment is not None:
    environment = {'TF_CONFIG': environment if isinstance(environment, str)
                                else json.dumps(environment)}
  settings.setdefault('listen_on_all_interfaces', True)
  return roles.find(config_lib.TrainConfig(**settings), environment or {})


def test_a_process_without_a_cluster_is_the_chief():
  alone = find()
  assert alone == roles.ALONE and alone.is_chief
  assert (alone.num_workers, alone.worker, alone.device) == (1, 0, '')
  assert not alone.needed()
  for environment in ('{}', {'cluster': []}, {'cluster': {'worker': ['c:1']}},
                      {'cluster': {'chief': ['c:1']},
                       'task': {'type': 'chief', 'index': 0}}):
    assert find(environment) == roles.ALONE
  # One of several clients of servers that run elsewhere.
  assert not find(master='grpc://a:1', ps_tasks=1, task=2).is_chief


def test_tasks_of_host_lists():
  chief = find(job_name='worker', **HOSTS)
  assert chief.is_chief and chief.address == 'c:1'
  assert chief.device == '/job:worker/task:0'
  assert chief.needed() == {'ps 0': 'a:1', 'ps 1': 'b:1'}
  worker = find(job_name='worker', task=2, **HOSTS)
  assert (worker.is_chief, worker.worker, worker.num_workers) == (False, 2, 3)
  assert worker.needed() == {'the chief': 'c:1', 'ps 0': 'a:1', 'ps 1': 'b:1'}
  server = find(job_name='ps', task=1, **HOSTS)
  assert not server.is_chief and server.address == 'b:1'
  assert server.needed() == {'the chief': 'c:1'}
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
    (dict(job_name='chief'), '--job_name=chief must be worker, ps or'),
    (dict(worker_hosts=''), '--worker_hosts= must be given'),
    (dict(master='grpc://a:1'), '--master=grpc://a:1 and --ps_hosts both'),
    (dict(ps_tasks=1), '--ps_tasks=1 and --ps_hosts both describe')])
def test_slips_in_host_lists(changes, said):
  with pytest.raises(UserError) as error:
    find(**{**HOSTS, 'job_name': 'worker', **changes})
  assert said in str(error.value)


@pytest.mark.parametrize('environment,said', [
    ('{', 'is not {"cluster": {job: ["host:port"]}, "task": {"type": job, '),
    ('[]', 'is not {"cluster": '),
    ({'cluster': {'ps': [1]}}, 'is not {"cluster": '),
    ({'cluster': {'ps': 'a:1'}}, "'a' is not an address; write host:port"),
    (dict(TF_CONFIG, task={'type': 'boss'}), '(known jobs are chief, worker'),
    (dict(TF_CONFIG, task={'type': 'worker', 'index': 1}),
     '(it has no address for worker 1); unset it'),
    ({'cluster': {'boss': ['a:1']}}, '(known jobs are chief, worker'),
    ({'task': {'type': 'ps', 'index': 0}}, '(it has no address for ps 0)'),
    ({'cluster': {'worker': ['a:1', 'b:1']}}, 'needs a ps'),
    ({'cluster': {'chief': ['a:1', 'b:1']}}, 'more than one chief'),
    ({'cluster': {'ps': ['a:1']}, 'task': {'type': 'ps', 'index': 0}},
     'needs a worker')], ids=str)
def test_slips_in_tf_config(environment, said):
  with pytest.raises(UserError) as error:
    find(environment)
  assert said in str(error.value)


@pytest.mark.parametrize('settings,said', [
    (dict(task=1), '--job_name= must be given'),
    (dict(sync_replicas=True, master='grpc://a:1'),
     'compute on --master=grpc://a:1; give --ps_hosts and --worker_hosts'),
    (dict(cluster_timeout=-1), '--cluster_timeout=-1 must be at least 0')])
def test_slips_in_settings(settings, said):
  with pytest.raises(UserError) as error:
    config_lib.validate_cluster(config_lib.TrainConfig(**settings))
  assert said in str(error.value)


def test_flags_and_environment_exclude_each_other():
  with pytest.raises(UserError, match='--ps_hosts=a:1,b:1 and TF_CONFIG both'):
    find(TF_CONFIG, job_name='worker', **HOSTS)
  with pytest.raises(UserError, match='--task=1 and TF_CONFIG both'):
    find(TF_CONFIG, task=1)


@pytest.mark.parametrize('interfaces,is_harmless', [
    (['lo'], True), ([], True), (['lo', 'eth0'], False), (['eth0'], False),
    (['lo0'], False), (['lo', 'tunl0'], False)])
def test_a_port_opens_only_where_nobody_else_can_reach_it(
    monkeypatch, interfaces, is_harmless):
  monkeypatch.setattr(socket, 'if_nameindex',
                      lambda: list(enumerate(interfaces, 1)))
  settings = dict(HOSTS, listen_on_all_interfaces=False)
  assert find(job_name='evaluator', **settings).job == 'evaluator'
  for job in 'ps', 'worker':
    assert find(job_name=job, **HOSTS).job == job
    if is_harmless:
      assert find(job_name=job, **settings).job == job
      continue
    with pytest.raises(UserError) as error:
      find(job_name=job, **settings)
    for reason in ('no password', 'executes what it is sent',
                   'every interface', 'give --listen_on_all_interfaces'):
      assert reason in str(error.value)
