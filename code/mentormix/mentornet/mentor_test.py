"""The mentor over several calls, thresholds and example dropout."""
import numpy as np
import pytest

from mentormix import sampling
from mentormix.mentornet import loading
from mentormix.mentornet import mentor as mentor_lib
from mentormix.mentornet import network as network_lib
from mentormix.runtime import tf


def test_mentor_over_twelve_calls(golden, weights):
  """Moving average and weights, call after call, as published."""
  loss = tf.placeholder(tf.float32, [128])
  epoch = tf.placeholder(tf.int32, [])
  sigmoids = []

  def network(features):
    sigmoids.append(network_lib.from_weights(weights)(features))
    return sigmoids[-1]

  mentor = mentor_lib.Mentor(network, epoch, 0.5, burn_in_epoch=10)
  v = mentor(loss)
  update = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  assert len(update) == 1
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for call, percent in enumerate(golden['wrap/epochs']):
      feed = {loss: golden['wrap/losses'][call, :, 0], epoch: percent}
      average, value, (sigmoid,), _ = session.run(
          [mentor.average, v, sigmoids, update], feed)
      np.testing.assert_allclose(
          sigmoid, golden['wrap/random_p0.5/sigmoid'][call, :, 0], rtol=1e-4,
          atol=1e-6)
      np.testing.assert_allclose(
          average, golden['wrap/random_p0.5/moving_avg'][call], rtol=1e-5)
      np.testing.assert_allclose(
          value, golden['wrap/random_p0.5/v'][call, :, 0], rtol=1e-4,
          atol=1e-6)
      if percent < 9:
        np.testing.assert_array_equal(value, np.ones(128))


def test_reading_a_weight_moves_nothing():
  mentor = mentor_lib.Mentor(lambda f: f[:, 0] * 0 + 0.5, tf.constant(50), 0.5)
  v = mentor(tf.constant([1.0, 2.0, 3.0]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    first = session.run([v, mentor.average])[1]
    assert session.run([v, mentor.average])[1] == first == 1.0


def test_two_mentors_have_two_averages():
  network = lambda f: tf.sigmoid(f[:, 0])
  for name in ('one', 'two'):
    mentor_lib.Mentor(network, tf.constant(0), 0.5, name=name)(tf.ones([4]))
  assert [v.op.name for v in tf.global_variables()] == [
      'one/loss_average', 'two/loss_average']
  assert not tf.trainable_variables()


@pytest.mark.parametrize('which', ['loss', 'loss_ties'])
def test_threshold(golden, which):
  loss = tf.constant(golden['thr/' + which][:, 0])
  prefix = f'thr/{which}_v_'
  keys = [key for key in golden if key.startswith(prefix)]
  assert len(keys) == 11
  with tf.Session() as session:
    for key in keys:
      v = mentor_lib.threshold(loss, float(key[len(prefix):]))
      np.testing.assert_array_equal(session.run(v), golden[key][:, 0], key)


def test_the_threshold_divides_by_100():
  """Unlike `percentile`: 10 of 16 losses are below the 0.7-percentile."""
  losses = tf.range(16.0)
  with tf.Session() as session:
    v = session.run(mentor_lib.threshold(losses, 0.7))
    assert session.run(mentor_lib.percentile(losses, 0.7)) == 11
  np.testing.assert_array_equal(v, [1] * 10 + [0] * 6)


def _dropped(loss, rates, epoch, **kwargs):
  """The weights of a mentor that takes each loss for its weight."""
  return mentor_lib.Mentor(lambda f: f[:, 0], epoch, 0.5, dropout_rates=rates,
                           **kwargs)(loss)


@pytest.mark.parametrize('size,rate,kept', [
    (128, 0.5, 64), (128, 0.9, 12), (128, 0.1, 115), (128, 1.0, 0),
    (100, 0.2, 80), (7, 0.25, 5), (1, 0.5, 0)])
def test_example_dropout_keeps_a_fixed_number(size, rate, kept):
  epoch = tf.placeholder(tf.int32, [])
  loss = np.random.RandomState(0).uniform(0.1, 1, size).astype(np.float32)
  v = _dropped(tf.constant(loss), [0.0] * 50 + [rate] * 50, epoch)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(session.run(v, {epoch: 49}), loss)
    for percent in (50, 99, 100):
      for _ in range(20):
        value = session.run(v, {epoch: percent})
        assert np.count_nonzero(value) == kept
        np.testing.assert_array_equal(value[value > 0], loss[value > 0])


def test_example_dropout_is_fair():
  """Each example, and each pair, is kept as often as any other."""
  v = _dropped(tf.ones([8]), [0.5] * 100, tf.constant(0))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    run = session.make_callable(v)
    values = np.array([run() for _ in range(4000)])
  pairs = values.T.dot(values) / len(values)
  expected = np.where(np.eye(8), 1 / 2, 1 / 2 * 3 / 7)
  np.testing.assert_allclose(pairs, expected, atol=0.04)


def test_example_dropout_follows_its_numbers():
  """The same in the same step; exactly as many if numbers are equal."""
  loss = tf.constant(np.ones(64, np.float32))
  numbers = tf.placeholder(tf.float32, [64])
  v = _dropped(loss, [0.75] * 100, tf.constant(0), name='fed',
               uniform=lambda shape: numbers)
  step = tf.placeholder(tf.int64, [])
  drawn = _dropped(loss, [0.75] * 100, tf.constant(0), name='drawn',
                   uniform=sampling.Sampler(3, step).uniform)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for each in np.arange(64)[::-1] / 64, np.full(64, 0.5):
      assert session.run(v, {numbers: each}).sum() == 16
    at = lambda k: session.run(drawn, {step: k}).tolist()
    assert at(1) == at(1) != at(2)


def test_no_dropout_draws_nothing():
  for name, rates in ('none', None), ('zero', [0.0] * 100):
    _dropped(tf.ones([4]), rates, tf.constant(0), name=name, uniform=None)


def test_a_formula_as_a_mentor():
  network = loading.load('v_star:mentornet_pd')
  epoch = tf.placeholder(tf.int32, [])
  v = mentor_lib.Mentor(network, epoch, 0.5, burn_in_epoch=10)(
      tf.constant([1.0, 2, 3, 4, 5]))  # Compared with 3 / 2.
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for percent, expected in [(0, [1, 1, 1, 1, 1]), (18, [1, 1, 1, 1, 1]),
                              (19, [1, 0, 0, 0, 0]), (90, [1, 0.5, 0, 0, 0])]:
      np.testing.assert_array_equal(session.run(v, {epoch: percent}), expected)
