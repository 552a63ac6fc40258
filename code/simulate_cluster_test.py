"""The simulation against closed forms, and the count against the graph."""
import functools
import os

import numpy as np
import pytest

import simulate_cluster
from mentormix import input_pipeline
from mentormix import testing
from mentormix.runtime import tf

SCRIPT = os.path.abspath(simulate_cluster.__file__)
MENTORNET = os.path.join(os.path.dirname(SCRIPT), os.pardir,
                         'mentornet_models', 'mentornet_pd')

_run = functools.partial(testing.run, SCRIPT, os.getcwd())


def _plan(workers, shares=(1.0,), gbits=8.0, step_secs=1.0, mbytes=100.0,
          update_gbytes=1.0, sum_gbytes=5.0, flow_gbits=1000.0):
  """By default 0.1 s each way, 0.1 s an update, 0.02 s a sum."""
  return simulate_cluster.network_plan(
      workers, list(shares), gbits, step_secs, mbytes, update_gbytes,
      sum_gbytes, flow_gbits)


def _rate(plan, **kwargs):
  return simulate_cluster.simulate(plan, 100, **kwargs).rate


def test_one_worker_pulls_computes_pushes_and_updates():
  plan = _plan(1)
  assert simulate_cluster.alone(plan) == pytest.approx(1.3)
  assert _rate(plan) == pytest.approx(1 / 1.3)


def test_one_worker_that_waits_for_itself_adds_its_sum():
  assert _rate(_plan(1), sync=True) == pytest.approx(1 / 1.32)


def test_a_flow_has_a_rate_of_its_own():
  plan = _plan(1, flow_gbits=4.0)
  assert simulate_cluster.alone(plan) == pytest.approx(1.5)
  assert _rate(plan) == pytest.approx(1 / 1.5)


def test_the_link_of_the_worker_takes_what_several_servers_send():
  """The updates alone are as many times as fast."""
  plan = _plan(1, shares=[0.25] * 4)
  assert simulate_cluster.alone(plan) == pytest.approx(1.225)
  assert _rate(plan) == pytest.approx(1 / 1.225)


def test_few_workers_hardly_meet():
  plan = _plan(3, step_secs=30.0)
  assert _rate(plan, spread=0.1) == pytest.approx(
      3 / simulate_cluster.alone(plan), rel=0.02)


@pytest.mark.parametrize('gbits, update_gbytes, most, busiest', [
    (8.0, 10.0, 10.0, 'server'), (80.0, 1.0, 10.0, 'memory')])
def test_many_workers_take_all_that_the_server_has(
    gbits, update_gbytes, most, busiest):
  plan = _plan(16, gbits=gbits, update_gbytes=update_gbytes, step_secs=0.1)
  assert simulate_cluster.most(plan) == pytest.approx(most)
  outcome = simulate_cluster.simulate(plan, 60, spread=0.1)
  assert 0.9 * most < outcome.rate < 1.02 * most
  assert outcome.busiest.startswith(busiest) and outcome.busy > 0.85


def test_more_servers_feed_more_workers_and_the_fullest_one_decides():
  most = simulate_cluster.most
  assert most(_plan(2, [0.25] * 4)) == pytest.approx(4 * most(_plan(2)))
  uneven = [0.5] + [0.5 / 3] * 3
  assert most(_plan(2, uneven)) == pytest.approx(2 * most(_plan(2)))
  one, even, uneven = (_rate(_plan(24, shares), spread=0.3)
                       for shares in ([1.0], [0.25] * 4, uneven))
  assert 1.3 * one < uneven < 0.9 * even


def test_synchronous_workers_all_pull_and_push_at_once():
  """W = 4: 0.4 s, 1 s, 0.4 s, four sums, one update."""
  assert _rate(_plan(4), sync=True) == pytest.approx(
      4 / (0.4 + 1 + 0.4 + 4 * 0.02 + 0.1))


def test_synchronous_training_is_never_ahead_where_an_update_costs_nothing():
  for workers in (2, 8):
    plan = _plan(workers, update_gbytes=1e6, sum_gbytes=1e6)
    assert _rate(plan, sync=True) < _rate(plan)


def test_the_slowest_of_synchronous_workers_sets_the_pace():
  plan = _plan(16, gbits=1e9, update_gbytes=1e9, sum_gbytes=1e9,
               flow_gbits=1e9)
  sigma = np.sqrt(np.log(1 + 0.3 ** 2))
  slowest = np.random.RandomState(1).lognormal(
      -sigma ** 2 / 2, sigma, [20000, 16]).max(axis=1).mean()
  assert slowest > 1.5
  assert _rate(plan, sync=True, spread=0.3) == pytest.approx(
      16 / slowest, rel=0.05)
  assert _rate(plan, spread=0.3) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize('workers', [1, 4, 16])
def test_staleness_is_a_step_of_each_of_the_others(workers):
  plan = _plan(workers)
  assert simulate_cluster.simulate(
      plan, 50, spread=0.2).staleness == pytest.approx(workers - 1, abs=0.1)
  assert simulate_cluster.simulate(plan, 20, True, 0.2).staleness == 0


def test_one_machine_shares_its_cores():
  """A step that uses 1.6 of two cores: one worker waits, two fill them."""
  seconds = [(0.1, 0.1), (1.0, 1.6), (0.2, 0.2), (0.0, 0.0), (0.0, 0.0)]
  plan = functools.partial(simulate_cluster.machine_plan, cores=2,
                           seconds=seconds)
  assert _rate(plan(1)) == pytest.approx(1 / 1.3)
  assert _rate(plan(4), spread=0.1) == pytest.approx(2 / 1.9, rel=0.03)


def test_the_seed_decides():
  plan = _plan(5)
  outcomes = [simulate_cluster.simulate(plan, 20, False, 0.5, seed)
              for seed in (0, 0, 1)]
  assert outcomes[0] == outcomes[1] != outcomes[2]


def test_every_tensor_between_the_tasks_counts_once():
  ps, worker = '/job:ps/task:0', '/job:worker/task:0'
  with tf.Graph().as_default():
    with tf.device(ps):
      variable = tf.get_variable('x', [5, 10])
    with tf.device(worker):
      value = variable.read_value()  # Lies with its variable.
      twice = tf.add(value, value)
      third = tf.add(value, tf.ones([]))
    update = variable.assign_add(twice)
    moved = simulate_cluster.traffic([update.op, third.op], tf.resource)
  assert dict(moved) == {'down': [200], 'up': [200]}


def test_each_weight_goes_down_once_a_step_and_its_gradient_up():
  code, out, err = _run('--show=traffic', '--studentnets=resnet8_thin',
                        '--servers=1,2', '--batch_size=4',
                        '--trained_mentornet_dir=' + MENTORNET)
  assert code == 0, err
  rows = [line.strip('| ').split(' | ') for line in out.splitlines()[2:]]
  assert [row[4] for row in rows] == ['1', '2']
  for row in rows:
    weights = 4 * int(row[1]) / 1e6
    assert weights > 0.2
    for way in row[6:8]:  # Moving statistics come on top.
      assert 1 < float(way) / weights < 1.05
  assert float(rows[0][5]) == 1 and 0.5 <= float(rows[1][5]) < 0.7


def test_the_parts_are_measured_and_a_step_predicted():
  code, out, err = _run('--show=machine', '--studentnets=resnet8_thin',
                        '--batch_size=4', '--workers=1,2',
                        '--trained_mentornet_dir=' + MENTORNET)
  assert code == 0 and not err, err
  parts = {}
  for line in out.splitlines():
    cells = line.strip('| ').split(' | ')
    if cells[0] in ('step', 'pull', 'push') and len(cells) == 3:
      parts[cells[0]] = float(cells[1])
    if cells[0] == '1':
      predicted = float(cells[1])
  assert sorted(parts) == ['pull', 'push', 'step']
  assert predicted >= 0.99 * parts['step'] > 0


def test_the_input_is_timed(tmp_path, monkeypatch):
  testing.write_records(str(tmp_path / 'cifar10_train-00000-of-00001'),
                        np.zeros([40, 32, 32, 3], np.uint8), [1] * 40)
  monkeypatch.setattr(simulate_cluster, '_BATCHES', 2)
  # Put back afterwards.
  monkeypatch.setattr(input_pipeline, 'MOST_IN_MEMORY', 0)
  lines = list(simulate_cluster.input_table(str(tmp_path), 8))
  assert [line.split(' | ')[0] for line in lines[2:]] == [
      '| check'] + ['| from files, threads: %d' % k for k in (1, 2, 4)]
  for line in lines[2:]:
    assert all(float(cell) > 0 for cell in line.strip('| ').split(' | ')[1:])


def test_the_tables_of_the_simulation():
  code, out, err = _run('--gbits=10', '--servers=1,2', '--fullest=1,0.6',
                        '--workers=1,4', '--steps=10')
  assert code == 0 and not err
  rows = [line.strip('| ').split(' | ') for line in out.splitlines()
          if line.startswith('| 0.47')]
  assert [len(row) for row in rows] == [6, 6, 10, 10, 10, 10]
  assert [row[2] for row in rows] == ['1', '2', '1', '1', '2', '2']


@pytest.mark.parametrize('args, message', [
    (['--gbits=fast'], '--gbits=fast: give numbers above 0'),
    (['--workers=0'], '--workers=0: give whole numbers above 0'),
    (['--workers='], '--workers=: give whole numbers above 0'),
    (['--step_secs=nan'], '--step_secs=nan: give numbers above 0'),
    (['--fullest=0.5'], '--fullest=0.5: give a share from 1 / M to 1'),
    (['--servers=2', '--fullest=0.4'], '--fullest=0.4: give a share'),
    (['--show=traffic', '--studentnets=vgg'], '--studentnet=vgg is unknown'),
    (['--show=machine', '--trained_mentornet_dir=/nowhere'],
     '--trained_mentornet_dir=/nowhere'),
    (['--show=input', '--data_dir=/nowhere'], '--data_dir=/nowhere'),
    (['--show=everything'], '--show=everything'),
    (['--steps=1'], '--steps=1'),
])
def test_bad_input_is_one_line(args, message):
  code, _, err = _run('--trained_mentornet_dir=' + MENTORNET, *args)
  assert code == 2
  assert message in err and len(err.splitlines()) == 1
