"""Learning a MentorNet: what it reaches, and each part of its settings."""
import numpy as np
import pytest

from mentormix.mentornet import curriculum
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import learning
from mentormix.mentornet import loading
from mentormix.mentornet import network
from mentormix.mentornet import weights as weights_lib
from mentormix.messages import RunError
from mentormix.runtime import tf


def _learn(name, **settings):
  chosen = curriculum.CURRICULA[name]
  train, held_out = curriculum.training_set(chosen, size=5000)
  weights = learning.learn(train[0], train[1],
                           learning.PUBLISHED._replace(**settings))
  return weights, held_out


def test_published_settings():
  assert learning.PUBLISHED == learning.Settings(
      batch_size=32, max_number_of_steps=30000, learning_rate=0.1,
      schedule=learning.STAIRCASE, loss=learning.BY_V_STAR, restarts=1,
      clip_norm=5, seed=0)


@pytest.mark.parametrize('name', ['self_paced', 'spcl_linear'])
def test_few_steps_beat_every_constant(name):
  """One curriculum for each of the two losses."""
  weights, (features, v_star) = _learn(
      name, max_number_of_steps=600, learning_rate=0.03)
  assert [(n, weights[n].shape) for n, _ in weights_lib.SHAPES] == list(
      weights_lib.SHAPES)
  constant = np.abs(v_star - np.median(v_star)).mean()
  v = loading.apply_network(network.from_weights(weights), features)
  errors = learning.held_out_errors(v, features, v_star)
  assert errors['mean_absolute_error'] < 0.1 * constant


def test_frozen_weights_give_the_same_numbers(tmp_path):
  weights, (features, _) = _learn('self_paced', max_number_of_steps=50)
  frozen_graph.freeze(weights, str(tmp_path))
  np.testing.assert_array_equal(*(
      loading.apply_network(each, features) for each in (
          loading.load(str(tmp_path)), network.from_weights(weights))))


def test_same_seed_same_weights():
  first, again, other = (
      _learn('mentornet_pd', max_number_of_steps=100, seed=seed)[0]
      for seed in (1, 1, 2))
  for name, value in first.items():
    np.testing.assert_array_equal(value, again[name])
  assert (first['mentornet/Variable'] != other['mentornet/Variable']).any()


def test_initial_variables():
  variables = learning.initial_variables()
  assert [(v.op.name, tuple(v.shape.as_list()))
          for v in tf.trainable_variables()] == list(weights_lib.SHAPES)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    values = session.run(variables)
  for name, value in values.items():
    if value.ndim == 1:
      assert not value.any()
    else:
      assert len(np.unique(value)) == value.size
      limit = np.sqrt(6.0 / 7) if 'lstm' in name else 0.2
      assert np.abs(value).max() <= limit


def test_batch_loss():
  logits, v_star = [0.0, np.log(3)], [1.0, 0.0]
  with tf.Session() as session:
    cross_entropy, squared = session.run([
        learning.batch_loss(tf.constant(logits), tf.constant(v_star), binary)
        for binary in (True, False)])
  np.testing.assert_allclose(cross_entropy, (np.log(2) + np.log(4)) / 2, 1e-6)
  np.testing.assert_allclose(squared, (0.5 ** 2 + 0.75 ** 2) / 2, 1e-6)


@pytest.mark.parametrize('scale,expected', [(100.0, [3, 4]), (0.5, [1.5, 2])])
def test_gradients_are_clipped_by_their_joint_norm(scale, expected):
  x, y = (tf.get_variable(name, initializer=0.0) for name in 'xy')
  gradients = learning.clipped_gradients(scale * (3 * x + 4 * y), [x, y], 5.0)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    np.testing.assert_allclose(session.run(gradients), expected, rtol=1e-6)


def test_a_row_looked_up_twice_counts_once_in_the_norm():
  table = tf.get_variable('table', initializer=tf.zeros([3, 1]))
  loss = 3.0 * tf.reduce_sum(tf.gather(table, [1, 1]))
  gradient, = learning.clipped_gradients(loss, [table], 5.0)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    np.testing.assert_allclose(session.run(gradient), [[0], [5], [0]],
                               rtol=1e-6)


def _values(gradients, settings):
  """A variable after each step of `minimize`, given the raw gradients."""
  step = tf.train.get_or_create_global_step()
  x = tf.get_variable('x', initializer=0.0)
  loss = x * tf.gather(tf.constant(gradients, tf.float32), step)
  train_op = learning.minimize(loss, [x], step, settings)
  values = []
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in gradients:
      session.run(train_op)
      values.append(session.run(x))
  return values


def test_learning_rate_is_cut_as_published():
  """Under a constant gradient a step of Adam is the learning rate."""
  values = _values([1.0] * 2002, learning.PUBLISHED)
  steps = -np.diff([0.0] + values)
  for done, rate in ((0, 0.1), (999, 0.1), (1000, 0.09), (1999, 0.09),
                     (2000, 0.081)):
    np.testing.assert_allclose(steps[done], rate, rtol=1e-3)


def test_the_cosine_schedule():
  settings = learning.BEST._replace(learning_rate=0.5, max_number_of_steps=4000)
  steps = tf.constant([0, 9, 999, 2000, 4000])
  with tf.Session() as session:
    rates = session.run(learning.learning_rate(steps, settings))
  start = 0.5 * (1 + np.cos(np.pi * 999 / 4000))
  np.testing.assert_allclose(rates, [
      0.0005, 0.5 * 0.01 * (0.5 * (1 + np.cos(np.pi * 9 / 4000))),
      0.5 * start, 0.25, 0.5e-4], rtol=1e-3)


def test_of_several_starts_the_closest_is_taken():
  chosen = curriculum.CURRICULA['spcl_linear']
  (features, v_star), _ = curriculum.training_set(chosen, size=2000)
  settings = learning.BEST._replace(max_number_of_steps=60, restarts=3)
  done = []
  taken = learning.learn(features, v_star, settings,
                         lambda steps, loss: done.append(steps))
  assert done == sorted(set(done)) and done[-1] == 180
  starts = [learning.learn(features, v_star, settings._replace(
      restarts=1, seed=learning._NEXT_START * k)) for k in range(3)]
  errors = [np.abs(loading.apply_network(
      network.from_weights(weights), features) - v_star).mean()
            for weights in starts]
  assert len(set(errors)) == 3
  for name, value in starts[int(np.argmin(errors))].items():
    np.testing.assert_array_equal(taken[name], value)


@pytest.mark.parametrize('loss,expected', [
    (learning.BY_V_STAR, 0.0625), (learning.CROSS_ENTROPY, np.log(2))])
def test_the_loss_of_a_curriculum_that_is_not_binary(loss, expected):
  """At the start all weights are about 0.5."""
  seen = []
  learning.learn(
      np.zeros([40, 4], np.float32), np.repeat(np.float32([0.25, 0.75]), 20),
      learning.BEST._replace(loss=loss, restarts=1, max_number_of_steps=1),
      lambda done, value: seen.append(value))
  np.testing.assert_allclose(seen, [expected], rtol=0.1)


def test_percentages_without_points_take_the_nearest():
  embedding = np.arange(10)[:, np.newaxis] * np.ones([1, 3])
  filled = learning.fill_epochs(embedding, [2.0, 8.0, 3.5, 2.0])
  np.testing.assert_array_equal(filled[:, 2], [2, 2, 2, 3, 3, 3, 8, 8, 8, 8])


def test_learning_fills_them():
  features = np.zeros([50, 4], np.float32)
  features[:25, 3] = 40
  weights = learning.learn(features, np.ones(50, np.float32),
                           learning.BEST._replace(max_number_of_steps=3))
  embedding = weights['mentornet/epoch_embedding']
  np.testing.assert_array_equal(embedding[:21], embedding[:1].repeat(21, 0))
  np.testing.assert_array_equal(embedding[21:], embedding[40:41].repeat(79, 0))
  assert (embedding[0] != embedding[40]).any()


def test_clipping_is_part_of_the_step():
  """The first gradient weighs in the second step as 5, not as 1000."""
  m = 0.9 * 0.1 * 5 + 0.1 * 1
  v = 0.999 * 0.001 * 25 + 0.001 * 1
  second = 0.1 * (m / (1 - 0.9 ** 2)) / np.sqrt(v / (1 - 0.999 ** 2))
  np.testing.assert_allclose(_values([1000.0, 1.0], learning.PUBLISHED),
                             [-0.1, -0.1 - second], rtol=1e-4)


def test_held_out_errors():
  features = np.zeros([200, 4], np.float32)
  features[:, 0] = 0.25
  features[:50, 3] = 20
  v_star = np.full([200], 0.25, np.float32)
  v_star[:2] = 0.75, 1.0  # Errors 0.5 and 0.75.
  errors = learning.held_out_errors(
      features[:, 0], features, v_star, [(0, 19), (20, 99)])
  assert errors == {
      'rows': 200, 'mean_absolute_error': 1.25 / 200,
      'worst_1_percent': 0.625, 'phases': [
          {'epoch_percent': [0, 19], 'rows': 150, 'mean_absolute_error': 0,
           'worst_1_percent': 0},
          {'epoch_percent': [20, 99], 'rows': 50,
           'mean_absolute_error': 1.25 / 50, 'worst_1_percent': 0.75}]}


def test_progress_is_reported():
  chosen = curriculum.CURRICULA['baseline']
  (features, v_star), _ = curriculum.training_set(chosen, 100)
  seen = []
  learning.learn(features, v_star,
                 learning.PUBLISHED._replace(max_number_of_steps=250),
                 lambda done, loss: seen.append((done, float(loss))))
  assert [done for done, _ in seen] == list(range(2, 251, 2))
  assert seen[-1][1] < seen[0][1]


def test_divergence_is_one_line():
  features = np.zeros([10, 4], np.float32)
  with pytest.raises(RunError, match='smaller learning rate'):
    learning.learn(features, np.full([10], np.nan, np.float32),
                   learning.PUBLISHED._replace(max_number_of_steps=3))


def test_a_formula_that_fails_is_one_line(tmp_path):
  (tmp_path / 'mine.py').write_text(
      'def v_star(loss, difference, label, epoch):\n'
      '  return 1 + (loss == 17)\n')
  formula = loading.load(f'v_star:{tmp_path / "mine.py"}')
  points = np.zeros([2, 4], np.float32)
  np.testing.assert_array_equal(loading.apply_network(formula, points), [1, 1])
  points[1, 0] = 17
  with pytest.raises(RunError, match='returns 2 at loss 17, difference 0'):
    loading.apply_network(formula, points)
