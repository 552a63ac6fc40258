"""Learns a MentorNet: from points with a known weight v* to its variables.

    weights = learn(features, v_star)
    frozen_graph.freeze(weights, directory)

The points come from a formula (`curriculum.training_set`) or from the losses of
a student (`loss_traces.training_set`). Learning is the same (MentorNet paper,
section 3; published code). N is the number of points.
"""
import typing

import numpy as np

from mentormix import schedules
from mentormix.mentornet import curriculum
from mentormix.mentornet import loading
from mentormix.mentornet import network as network_lib
from mentormix.mentornet import weights as weights_lib
from mentormix.messages import RunError
from mentormix.runtime import tf

STAIRCASE, COSINE = 'staircase', 'cosine'
BY_V_STAR, CROSS_ENTROPY = 'by_v_star', 'cross_entropy'


class Settings(typing.NamedTuple):
  """How to learn; the defaults are published.

  STAIRCASE multiplies the learning rate by 0.9 every 1,000 steps. COSINE raises
  it linearly and then lowers it to almost 0. BY_V_STAR is sigmoid cross-entropy
  if v* is always 0 or 1, else the squared error.
  """
  batch_size: int = 32  # Points per step.
  max_number_of_steps: int = 30000  # Steps of each start.
  learning_rate: float = 0.1  # Highest learning rate of Adam.
  schedule: str = STAIRCASE  # Or COSINE.
  loss: str = BY_V_STAR  # Or CROSS_ENTROPY, always.
  restarts: int = 1  # Starts; the one with the smallest error is kept.
  clip_norm: float = 5.0  # Joint norm that gradients are scaled down to.
  seed: int = 0  # Of the initial weights and the batches.


PUBLISHED = Settings()
# Found by trial; mentornet_models/README.md has the errors of both.
BEST = PUBLISHED._replace(
    batch_size=256, max_number_of_steps=40000, learning_rate=0.06,
    schedule=COSINE, loss=CROSS_ENTROPY, restarts=3)

_DECAY_FACTOR, _STEPS_PER_DECAY = 0.9, 1000
_WARM_UP_STEPS, _LAST_RATE = 1000, 1e-4  # The last is a share of the highest.

IN_WORDS = {  # For a card.
    STAIRCASE: f'times {_DECAY_FACTOR:g} every {_STEPS_PER_DECAY} steps',
    COSINE: f'reached in {_WARM_UP_STEPS} steps, then falling to '
            f'{_LAST_RATE:g} of it as a cosine does',
    BY_V_STAR: 'sigmoid cross-entropy if v* is always 0 or 1, else the squared '
               'error',
    CROSS_ENTROPY: 'sigmoid cross-entropy',
}
_EPOCHS = 'mentornet/epoch_embedding'
_INITIAL_STDDEV = 0.1  # Of the embeddings and dense layers.
_NEXT_START = 1000003  # Difference of the seeds of two starts.
_WORST_SHARE = 0.01
_REPORTS = 100  # Calls of `on_step` per start.


def learn(features, v_star, settings=BEST, on_step=None):
  """Fits the network to v* by Adam.

  The same arguments give the same weights on the same runtime. It uses one core
  of the CPU, because more do not help with so small a network.

  Args:
    features: [N, 4] float32: loss, difference, label, epoch percentage.
    v_star: [N] float32, in [0, 1].
    settings: a `Settings`.
    on_step: called about a hundred times with (steps done in all starts, loss
      of the batch).

  Returns:
    name -> array, with the names and shapes of `weights.SHAPES`.

  Raises:
    RunError: the loss, a weight or an output is no longer finite.
  """
  steps, starts = settings.max_number_of_steps, []
  for start in range(settings.restarts):
    def report(done, loss, before=start * steps):
      if on_step:
        on_step(before + done, loss)
    weights = _learn_once(
        features, v_star,
        settings._replace(seed=settings.seed + _NEXT_START * start), report)
    v = loading.apply_network(network_lib.from_weights(weights), features)
    error = np.abs(v - v_star).mean()
    if not all(np.isfinite(x).all() for x in [error, *weights.values()]):
      raise RunError(_DIVERGED)
    starts.append((error, start, weights))
  return min(starts)[-1]  # The number of the start breaks ties.


def _learn_once(features, v_star, settings, on_step):
  """`learn` from one start."""
  with tf.Graph().as_default():
    tf.set_random_seed(settings.seed)
    variables = initial_variables()
    # Drawn in the graph, so that a step needs no input from Python.
    rows = tf.random.uniform([settings.batch_size], maxval=len(features),
                             dtype=tf.int32, seed=0)
    batch, target = (tf.gather(tf.constant(x, tf.float32), rows)
                     for x in (features, v_star))
    loss = batch_loss(network_lib.network(batch, variables), target,
                      settings.loss == CROSS_ENTROPY
                      or curriculum.is_binary(v_star))
    step = tf.train.get_or_create_global_step()
    train_op = minimize(loss, list(variables.values()), step, settings)
    with tf.Session(config=loading.one_core()) as session:
      session.run(tf.global_variables_initializer())
      _run(session, train_op, loss, settings.max_number_of_steps, on_step)
      weights = session.run(variables)
  weights[_EPOCHS] = fill_epochs(weights[_EPOCHS], features[:, 3])
  return weights


_DIVERGED = ('learning diverged: the loss or a weight is no longer finite; '
             'use a smaller learning rate')


def _run(session, train_op, loss, num_steps, on_step):
  """Runs the steps; a plain callable costs less per step than session.run."""
  plain_step = session.make_callable(train_op)
  step_with_loss = session.make_callable([loss, train_op])
  every = max(1, num_steps // _REPORTS)
  for done in range(1, num_steps + 1):
    if done % every and done < num_steps:
      plain_step()
      continue
    value, _ = step_with_loss()
    if not np.isfinite(value):
      raise RunError(_DIVERGED)
    on_step(done, value)


def fill_epochs(embedding, epochs):
  """Fills the rows of an embedding for which there were no points.

  They still hold random initial numbers. Each becomes the row of the nearest
  percentage with points.

  Args:
    embedding: [E, D], a row for each epoch percentage.
    epochs: [N], the percentages of the points.

  Returns:
    [E, D].
  """
  seen = np.unique(np.asarray(epochs, np.int64))
  distance = np.abs(np.arange(len(embedding))[:, np.newaxis] - seen)  # [E, S]
  return embedding[seen[distance.argmin(axis=1)]]


def initial_variables():
  """The initial variables, name -> variable.

  Embeddings and dense weights are small and truncated normal, LSTM kernels are
  Glorot uniform, biases are 0.
  """
  variables = {}
  for seed, (name, shape) in enumerate(weights_lib.SHAPES):
    if len(shape) == 1:
      initializer = tf.zeros_initializer()
    elif 'lstm' in name:
      initializer = tf.glorot_uniform_initializer(seed=seed)
    else:
      initializer = tf.truncated_normal_initializer(
          stddev=_INITIAL_STDDEV, seed=seed)
    variables[name] = tf.get_variable(name, shape, initializer=initializer)
  return variables


def batch_loss(logits, v_star, cross_entropy):
  """The mean loss of a batch, which learning minimises, a scalar.

  Args:
    logits: [B], before the sigmoid.
    v_star: [B].
    cross_entropy: whether to use sigmoid cross-entropy or the squared error of
      the weight.
  """
  if cross_entropy:
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(
        labels=v_star, logits=logits))
  return tf.reduce_mean(tf.square(tf.sigmoid(logits) - v_star))


def minimize(loss, variables, step, settings):
  """One step of Adam with a decaying rate and clipped gradients."""
  rate = learning_rate(step, settings)
  gradients = clipped_gradients(loss, variables, settings.clip_norm)
  return tf.train.AdamOptimizer(rate).apply_gradients(
      zip(gradients, variables), global_step=step)


def learning_rate(step, settings):
  """The learning rate of a step by its schedule, a float32 scalar."""
  if settings.schedule == STAIRCASE:
    return schedules.learning_rate(step, settings.learning_rate, _DECAY_FACTOR,
                                   _STEPS_PER_DECAY)
  done = tf.cast(step, tf.float32)
  falling = 0.5 * (1 + tf.cos(np.pi * done / settings.max_number_of_steps))
  rising = tf.minimum(1.0, (done + 1) / _WARM_UP_STEPS)
  return settings.learning_rate * rising * (
      _LAST_RATE + (1 - _LAST_RATE) * falling)


def clipped_gradients(loss, variables, clip_norm):
  """Gradients, scaled down together if their joint norm exceeds `clip_norm`.

  Those of the embeddings are made dense first. Otherwise a row that a batch
  looks up several times would count as several rows.
  """
  gradients = [tf.convert_to_tensor(gradient)
               for gradient in tf.gradients(loss, variables)]
  return tf.clip_by_global_norm(gradients, clip_norm)[0]


def held_out_errors(v, features, v_star, phases=()):
  """Measures a network on points that it has not learned from.

  Args:
    v: [N], what the network gives.
    features: [N, 4] array.
    v_star: [N] array.
    phases: (first, last) epoch percentages to report separately.

  Returns:
    A dict for JSON: number of rows, mean absolute error of all and of the worst
    1% of the rows, and a list of such dicts for the phases.
  """
  error = np.abs(v.astype(np.float64) - v_star)
  percent = features[:, 3]
  return dict(_summary(error), phases=[
      dict(_summary(error[(percent >= first) & (percent <= last)]),
           epoch_percent=[first, last]) for first, last in phases])


def _summary(error):
  worst = np.sort(error)[-max(1, int(round(len(error) * _WORST_SHARE))):]
  return {
      'rows': len(error),
      'mean_absolute_error': float(error.mean()) if len(error) else None,
      'worst_1_percent': float(worst.mean()) if len(error) else None,
  }
