"""Schedules, both ends included, against the published numbers."""
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import runtime
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


def _published_percent(step, max_steps):
  """The formula of the published graph."""
  fraction = tf.cast(step, tf.float64) / tf.cast(max_steps, tf.float64)
  return tf.cast(fraction * 100, tf.int32)


def _fed(percent, steps, max_steps):
  """The percentages [N] of steps [N] that a session is fed."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [None])
    return session.run(percent(step, max_steps), {step: steps})


def _counted(percent, steps, max_steps):
  """The percentages [N] at these values of the global step, one at a time."""
  with tf.Graph().as_default(), tf.Session(
      config=runtime.session_config()) as session:
    global_step = tf.train.get_or_create_global_step()
    value = percent(tf.identity(global_step), max_steps)
    with tf.control_dependencies([value]):
      train_op = global_step.assign_add(1).op
    session.run(global_step.initializer)
    percents = []
    for step in steps:
      global_step.load(step, session)
      percents.append(session.run([value, train_op])[0])
    return percents


@pytest.mark.parametrize('max_steps', [200000, 100000, 39000, 2000])
def test_epoch_percent_at_every_step(golden, max_steps):
  """As the published graph in a session.

  The golden numbers are those of the division itself, as a graph of constants
  computes it: there, three of the 100 boundaries come one step later.
  """
  steps = np.arange(max_steps + 1)
  percents = _fed(schedules.epoch_percent, steps, max_steps)
  np.testing.assert_array_equal(percents, 100 * steps // max_steps)
  np.testing.assert_array_equal(
      percents, _fed(_published_percent, steps, max_steps))
  later = golden[f'sched/epoch_step_differs_from_integer_{max_steps}']
  assert len(later) == 3
  percents[later] -= 1
  np.testing.assert_array_equal(percents,
                                golden[f'sched/epoch_step_all_{max_steps}'])


@pytest.mark.parametrize('max_steps,steps,expected', [
    (200000, [57999, 58000, 114000, 116000, 199999], [28, 29, 57, 58, 99]),
    (12, [0, 2, 3, 6, 9, 11], [0, 16, 24, 49, 74, 91]),
    (3, [0, 1, 2, 3], [0, 33, 66, 99])])
def test_epoch_percent_of_a_training_step(max_steps, steps, expected):
  for percent in schedules.epoch_percent, _published_percent:
    assert _counted(percent, steps, max_steps) == expected
  with tf.Session() as session:  # Of a checkpoint, the step is a constant.
    assert session.run([schedules.epoch_percent(step, max_steps)
                        for step in steps]) == expected


def test_epoch_percent_for_any_number_of_steps():
  for max_steps in np.random.RandomState(0).randint(1, 400000, 20).tolist():
    steps = np.arange(101) * max_steps // 100
    steps = np.concatenate([steps, np.minimum(steps + 1, max_steps)])
    np.testing.assert_array_equal(
        _fed(schedules.epoch_percent, steps, max_steps),
        _fed(_published_percent, steps, max_steps))


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


def _cosine(step):
  return 0.3 * (1 + np.cos(np.pi * np.minimum(step / 50.0, 1))) / 2


def _linear(step, warmup=0):
  return 0.3 * np.minimum(1, np.maximum(0, (50.0 - step) / (50 - warmup)))


def _stepped(step):
  return 0.3 * 0.1 ** ((step >= 20).astype(int) + (step >= 31))


@pytest.mark.parametrize('warmup', [0, 7])
@pytest.mark.parametrize('rate,expected', [
    (lambda s, w: schedules.cosine_rate(s, 0.3, 50, w), _cosine),
    (lambda s, w: schedules.stepped_rate(s, 0.3, 0.1, [20, 30.5], w),
     _stepped)])
def test_rates_against_numpy(rate, expected, warmup):
  steps = np.arange(56)
  expected = expected(steps)
  if warmup:
    expected = expected * np.minimum(1, (steps + 1.0) / warmup)
  rates = _each(lambda s: rate(s, warmup), steps)
  np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


def test_the_linear_rate():
  """Up to the initial rate, then straight down to 0."""
  for warmup in (0, 7):
    expected = _linear(np.arange(56), warmup)
    if warmup:
      expected = expected * np.minimum(1, (np.arange(56) + 1.0) / warmup)
    rates = _each(lambda s: schedules.linear_rate(s, 0.3, 50, warmup),
                  range(56))
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)
    assert rates[warmup] == max(rates) and rates[50] == 0


@pytest.mark.parametrize('schedule,replicas,expected', [
    ('exponential', 1, [.8, .8, .8, .4, .4, .4, .2, .2]),  # 10 / 5 * 1.5
    ('cosine', 2, _cosine(np.arange(8) * 6.25) * .8 / .3),
    ('linear', 2, .8 * (1 - np.arange(8) / 8.0)),
    ('steps', 1, [.8, .8, .4, .4, .4, .4, .2, .2]),
    ('steps', 2, [.8, .4, .4, .2, .2, .2, .2, .2])])
def test_the_rate_of_a_run(schedule, replicas, expected):
  config = config_lib.TrainConfig(
      batch_size=5, learning_rate=.8, learning_rate_decay_factor=.5,
      num_epochs_per_decay=1.5, max_number_of_steps=8, decay_epochs='1,3',
      learning_rate_schedule=schedule)
  rates = _each(lambda s: schedules.configured_rate(config, s, 10, replicas),
                range(8))
  np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_decay_epochs():
  assert schedules.decay_epochs('40,100.5') == [40, 100.5]
  for text in ('', 'x', '5,', '5,5', '9,5', '-1', '0,3', 'nan', '1,inf'):
    with pytest.raises(UserError, match=f'--decay_epochs={text} is not'):
      schedules.decay_epochs(text)


def test_what_co_teaching_forgets():
  """It grows to the full rate over ten epochs, here of 20 steps."""
  step = tf.placeholder(tf.int64, [])
  share = schedules.forgotten_share(0.4, step, 20)
  with tf.Session() as session:
    found = [session.run(share, {step: n}) for n in (0, 10, 100, 200, 1000)]
  np.testing.assert_allclose(found, [0, 0.02, 0.2, 0.4, 0.4], rtol=1e-6)
