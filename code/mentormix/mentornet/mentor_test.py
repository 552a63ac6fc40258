"""The mentor over several calls, thresholds and example dropout."""
import numpy as np
import pytest

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
  """Unlike `percentile`: of 16 losses, those below the 0.7-percentile are 10."""
  losses = tf.range(16.0)
  with tf.Session() as session:
    v = session.run(mentor_lib.threshold(losses, 0.7))
    assert session.run(mentor_lib.percentile(losses, 0.7)) == 11
  np.testing.assert_array_equal(v, [1] * 10 + [0] * 6)


def test_example_dropout():
  rates = [0.0] * 50 + [0.25] * 50
  epoch = tf.placeholder(tf.int32, [])
  mentor = mentor_lib.Mentor(lambda f: f[:, 0], epoch, 0.5,
                             dropout_rates=rates)
  v = mentor(tf.ones([20000]))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run(v, {epoch: 49}).mean() == 1
    for percent in (50, 100):
      assert abs(session.run(v, {epoch: percent}).mean() - 0.75) < 0.02


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
