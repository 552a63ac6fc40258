"""The graph of a worker, and how its server starts."""
import socket

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import schedules
from mentormix.accelerator import flops
from mentormix.cluster import roles
from mentormix.cluster import servers
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.training import step as step_lib

CONFIG = config_lib.TrainConfig(
    data_dir='data', train_log_dir='train', dataset_name='digits',
    studentnet='resnet8_thin', batch_size=4, trained_mentornet_dir='threshold')
JOBS = {'ps': ('a:1',), 'worker': ('c:1', 'd:1')}
WORKER = roles.Cluster(JOBS, 'worker', 1)


def _build(cluster=WORKER, **settings):
  """One step as a worker builds it; no server is needed for that."""
  tf.reset_default_graph()
  config = CONFIG._replace(**settings)
  with tf.device(servers.placement(cluster, config)):
    batch = input_pipeline.Batch(
        tf.zeros([4, 32, 32, 3]), tf.zeros([4], tf.int64),
        tf.zeros([4], tf.int64), tf.constant([''] * 4))
    return step_lib.build_step(
        config, datasets.get('digits'), 100, batch,
        lambda features: tf.fill(tf.shape(features)[:1], 0.7), cluster=cluster)


def _job(op):
  if op.type == 'ReadVariableOp':  # Always runs where the variable is.
    op = op.inputs[0].op
  return tf.DeviceSpec.from_string(op.device or '/job:worker').job


def _crossing(source, target):
  """The tensors that go from a job to another, each once per device."""
  return {(t, op.device) for op in tf.get_default_graph().get_operations()
          for t in op.inputs if _job(t.op) == source and _job(op) == target
          and t.dtype == tf.float32}


def _bytes(tensors):
  return sum(4 * t.shape.num_elements() for t, _ in tensors)


@pytest.mark.parametrize('sync', [False, True])
def test_each_weight_goes_down_once_and_its_gradient_up_once(sync):
  _build(sync_replicas=sync)
  weights = tf.trainable_variables()
  total = sum(4 * w.shape.num_elements() for w in weights)
  statistics = total // 50  # Of batch norm, which are small.
  initial = {w.initial_value.op.name for w in weights}
  for source, target in ('ps', 'worker'), ('worker', 'ps'):
    sent = [(t, d) for t, d in _crossing(source, target)
            if t.op.name not in initial]
    assert total <= _bytes(sent) < total + statistics, (source, target)
  # What a step changes lies on the servers.
  assert {_job(v.op) for v in tf.global_variables()} == {'ps'}
  by_name = {v.op.name: v.device for v in tf.global_variables()}
  for name, device in by_name.items():
    for slot in 'Momentum', 'ExponentialMovingAverage':
      assert by_name.get(f'{name}/{slot}', device) == device


def test_what_synchronous_training_runs_besides_is_no_step():
  hook = _build(WORKER._replace(task=0), sync_replicas=True).sync_hook
  for op in hook._take_step, hook._initialize, hook._release:
    kinds = {x.type for x in flops.behind([getattr(op, 'op', op)])}
    assert 'Conv2D' not in kinds and 'FusedBatchNormV3' not in kinds


def test_servers_share_the_bytes():
  cluster = WORKER._replace(jobs=dict(JOBS, ps=('a:1', 'b:1', 'e:1')))
  _build(cluster)
  held = np.zeros(3)
  for w in tf.trainable_variables():
    held[tf.DeviceSpec.from_string(w.device).task] += w.shape.num_elements()
  largest = max(w.shape.num_elements() for w in tf.trainable_variables())
  assert held.max() - held.min() <= largest


def test_the_average_takes_the_weights_after_the_step():
  """They are read anew, not from what was fetched for the step."""
  _build()
  graph = tf.get_default_graph()
  for w in tf.trainable_variables():
    update = graph.get_operation_by_name(
        [op.name for op in graph.get_operations()
         if op.type == 'AssignSubVariableOp' and op.inputs[0].op.name ==
         w.op.name + '/ExponentialMovingAverage'][0])
    seen, ahead = set(), [update]
    while ahead:
      op = ahead.pop()
      for t in op.inputs:
        if t.op not in seen:
          seen.add(t.op)
          ahead.append(t.op)
    reads = [op for op in seen
             if op.type == 'ReadVariableOp' and op.inputs[0].op is w.op]
    assert len(reads) == 1
    assert any(c.type == 'ResourceApplyMomentum' or c.type == 'NoOp'
               for c in reads[0].control_inputs)


def test_no_server_starts_where_others_could_reach_it(monkeypatch):
  monkeypatch.setattr(socket, 'if_nameindex', lambda: [(1, 'lo'), (2, 'eth0')])
  monkeypatch.setattr(tf.train, 'Server', None)  # Would fail.
  for start in servers.start, servers.serve:
    with pytest.raises(UserError, match='has no password, executes what it '
                       'is sent .* --listen_on_all_interfaces'):
      start(WORKER, CONFIG)


def test_a_port_in_use_is_named():
  with socket.socket() as other:
    other.bind(('127.0.0.1', 0))
    other.listen(1)
    port = other.getsockname()[1]
    cluster = WORKER._replace(jobs={'ps': ('a:1',), 'worker': (
        'c:1', f'127.0.0.1:{port}')})
    with pytest.raises(UserError, match='^worker 1 cannot listen on port '
                       f'{port} .*Address already in use'):
      servers.start(cluster, CONFIG._replace(listen_on_all_interfaces=True))


def test_the_settings_that_differ_from_the_chief_are_named():
  settings = {'mixup_alpha': 8.0, 'method': 'mentormix', 'noise': None}
  assert servers.differences(settings, dict(settings)) == ''
  assert servers.differences(
      settings, {'mixup_alpha': 3.0, 'method': 'mentormix', 'seed': 1}) == (
          'mixup_alpha is 8.0 there, 3.0 here, seed is None there, 1 here')


def test_a_task_talks_to_the_servers_only():
  filters = servers.session_config(WORKER, CONFIG).device_filters
  assert list(filters) == ['/job:ps', '/job:worker/task:1']
  filters = servers.session_config(
      WORKER._replace(job='ps', task=0), CONFIG).device_filters
  assert list(filters) == ['/job:ps/task:0']
  assert not servers.session_config(roles.ALONE, CONFIG).device_filters


@pytest.mark.parametrize('sync,per_epoch', [(False, 25), (True, 12.5)])
def test_synchronous_steps_count_the_examples_of_all_workers(
    monkeypatch, sync, per_epoch):
  """Steps of 4 examples, or of 2 x 4; the rate is cut every 3 epochs of 100."""
  cuts = []
  real = schedules.learning_rate

  def learning_rate(step, initial, factor, steps_per_decay, warmup_steps):
    cuts.append(steps_per_decay)
    return real(step, initial, factor, steps_per_decay, warmup_steps)
  monkeypatch.setattr(schedules, 'learning_rate', learning_rate)
  _build(sync_replicas=sync)
  assert cuts == [3 * per_epoch]
