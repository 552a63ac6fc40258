"""The simulation against closed forms, and the count against the graph."""
import numpy as np
import pytest
import simulate_cluster

from mentormix import testing
from mentormix.runtime import tf


def _machines(shares=(1.0,), **settings):
  """By default 0.1 s each way, 0.1 s per update, 0.02 s per sum."""
  return simulate_cluster.Machines([1e8 * share for share in shares], **dict(
      dict(step_secs=1.0, link=1e9, flow=1e12, update=1e9, add=5e9),
      **settings))


def _rate(machines, workers, **kwargs):
  return simulate_cluster.simulate(machines, workers, **kwargs)[0]


@pytest.mark.parametrize('settings,seconds', [
    ({}, 1.3), (dict(flow=5e8), 1.5),
    # The worker's link carries everything; updates are four times as fast.
    (dict(shares=[0.25] * 4), 1.225)])
def test_one_worker_pulls_computes_pushes_and_updates(settings, seconds):
  machines = _machines(**settings)
  assert simulate_cluster.alone(machines) == pytest.approx(seconds)
  assert _rate(machines, 1) == pytest.approx(1 / seconds)


@pytest.mark.parametrize('link, update, busiest', [
    (1e9, 1e10, 'server'), (1e10, 1e9, 'memory')])
def test_many_workers_take_all_that_the_server_has(link, update, busiest):
  machines = _machines(link=link, update=update, step_secs=0.1)
  assert simulate_cluster.most(machines) == pytest.approx(10)
  rate, _, busy = simulate_cluster.simulate(machines, 16, spread=0.1)
  assert 9 < rate < 10.2
  name = max(busy, key=busy.get)
  assert name.startswith(busiest) and busy[name] > 0.85


def test_more_servers_feed_more_workers_and_the_fullest_one_decides():
  most = simulate_cluster.most
  one = most(_machines())
  assert most(_machines([0.25] * 4)) == pytest.approx(4 * one)
  assert most(_machines([0.5] + [0.5 / 3] * 3)) == pytest.approx(2 * one)


def test_synchronous_workers_all_pull_and_push_at_once():
  """W = 4: 0.4 s, 1 s, 0.4 s, four sums, one update."""
  assert _rate(_machines(), 4, sync=True) == pytest.approx(
      4 / (0.4 + 1 + 0.4 + 4 * 0.02 + 0.1))


def test_the_slowest_of_synchronous_workers_sets_the_pace():
  machines = _machines(link=1e18, update=1e18, add=1e18, flow=1e18)
  sigma = np.sqrt(np.log(1 + 0.3 ** 2))
  slowest = np.random.RandomState(1).lognormal(
      -sigma ** 2 / 2, sigma, [20000, 16]).max(axis=1).mean()
  assert slowest > 1.5
  assert _rate(machines, 16, sync=True, spread=0.3) == pytest.approx(
      16 / slowest, rel=0.05)
  assert _rate(machines, 16, spread=0.3) == pytest.approx(16, rel=0.05)


def test_staleness_is_a_step_of_each_of_the_others():
  _, staleness, _ = simulate_cluster.simulate(_machines(), 4, spread=0.2)
  assert staleness == pytest.approx(3, abs=0.1)
  _, staleness, _ = simulate_cluster.simulate(_machines(), 4, True, 0.2)
  assert staleness == 0


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
    moved = simulate_cluster.traffic([update.op, third.op])
  assert moved == ([200], [200])


def test_each_weight_goes_down_once_a_step_and_its_gradient_up():
  lines = list(simulate_cluster.traffic_table(['resnet8_thin'], [1, 2]))
  assert len(lines) == 4
  for line in lines[2:]:
    row = line.strip('| ').split(' | ')
    weights = 4 * int(row[1]) / 1e6
    assert weights > 0.2
    for way in row[6:8]:  # Moving statistics come on top.
      assert 1 < float(way) / weights < 1.05
    assert float(row[5]) == 1 if row[4] == '1' else 0.5 <= float(row[5]) < 0.7


def test_the_tables_of_the_simulation():
  code, out, err = testing.run_command(
      simulate_cluster, '--gbits=10', '--servers=1,2', '--fullest=1,0.6',
      '--workers=1,4')
  assert code == 0 and not err
  rows = [line.strip('| ').split(' | ') for line in out.splitlines()
          if line.startswith('| 0.47')]
  assert [len(row) for row in rows] == [6, 6, 10, 10, 10, 10]
  assert [row[2] for row in rows] == ['1', '2', '1', '1', '2', '2']


@pytest.mark.parametrize('args, message', [
    (['--gbits=fast'], '--gbits=fast: give numbers of type float'),
    (['--workers=0'], '--workers=0: give numbers of type int above 0'),
    (['--servers=2', '--fullest=0.4'], '--fullest=0.4: give a share from 1 / '),
    (['--show=machine'], '--show=machine')])
def test_errors_are_one_line(args, message):
  testing.assert_one_line(testing.run_command(simulate_cluster, *args), 2,
                          message)
