"""Schedules, both ends included, against the published numbers."""
import numpy as np
import pytest

from mentormix import schedules
from mentormix import testing
from mentormix.messages import UserError
from mentormix.runtime import tf


@pytest.fixture(scope='module')
def golden():
  tf.reset_default_graph()
  return testing.golden()


def _each(fn, steps):
  step = tf.placeholder(tf.int64, [])
  value = fn(step)
  with tf.Session() as session:
    return [session.run(value, {step: s}) for s in steps]


@pytest.mark.parametrize('epochs', [30, 3])
def test_learning_rate(golden, epochs):
  per_decay = schedules.decay_steps(50000, 128, epochs)
  rates = _each(lambda s: schedules.learning_rate(s, 0.1, 0.9, per_decay),
                golden['sched/steps'])
  np.testing.assert_allclose(rates, golden[f'sched/lr_{epochs}ep'], rtol=1e-6)


@pytest.mark.parametrize('max_steps', [200000, 100000, 39000, 2000])
def test_epoch_percent_at_every_step(golden, max_steps):
  published = golden[f'sched/epoch_step_all_{max_steps}']
  with tf.Session() as session:
    steps = np.arange(max_steps + 1)
    percents = session.run(schedules.epoch_percent(tf.constant(steps),
                                                   max_steps))
  np.testing.assert_array_equal(percents, published)
  assert percents[0] == 0 and percents[-1] == 100
  differs = np.flatnonzero(percents != 100 * steps // max_steps)
  np.testing.assert_array_equal(
      differs, golden[f'sched/epoch_step_differs_from_integer_{max_steps}'])


def test_weight_average_decay(golden):
  for steps, decays in (('steps', 'ema_decay'),
                        ('ema_steps', 'ema_decay_at')):
    values = _each(schedules.weight_average_decay, golden['sched/' + steps])
    np.testing.assert_allclose(values, golden['sched/' + decays], rtol=1e-6)


def test_dropout_table():
  assert schedules.dropout_table('0.0,100') == [0.0] * 100
  table = schedules.dropout_table('0.5,17,0.05,78,1.0,5')
  assert table == [0.5] * 17 + [0.05] * 78 + [1.0] * 5


@pytest.mark.parametrize('text', [
    '', '0.5', '0.5,50', '0.5,101', '1.5,100', '-0.1,100', 'a,100', '0,x',
    '0,-1,0,101', '0.5,100,0.5', '0,999999999'])
def test_bad_dropout_table(text):
  with pytest.raises(UserError, match='example_dropout_rates'):
    schedules.dropout_table(text)


def test_the_rate_warms_up():
  rate = lambda step: schedules.learning_rate(step, 0.8, 0.5, 6, 4)
  np.testing.assert_allclose(
      _each(rate, range(8)), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4],
      rtol=1e-6)
