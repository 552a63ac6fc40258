"""Learns a MentorNet: from points with a known weight v* to its variables.

    weights = learn(features, v_star)
    mentornet.freeze(weights, directory)
    errors = held_out_errors(mentornet.load(directory), held_out, v_star)

The points may come from a formula (`curriculum.training_set`) or from what a
student saw (`loss_traces.training_set`); the learning is the same (MentorNet
paper, section 3; published code). N is the number of points.
"""
import collections
import functools

import numpy as np

from mentormix import curriculum
from mentormix import mentornet
from mentormix import runtime
from mentormix import schedules
from mentormix.command import RunError
from mentormix.runtime import tf

STAIRCASE, COSINE = 'staircase', 'cosine'
BY_V_STAR, CROSS_ENTROPY = 'by_v_star', 'cross_entropy'


class Settings(collections.namedtuple('Settings', [
    'batch_size', 'max_number_of_steps', 'learning_rate', 'schedule', 'loss',
    'restarts', 'clip_norm', 'seed'])):
  """How to learn.

  Attributes:
    batch_size: points per step.
    max_number_of_steps: steps of each start.
    learning_rate: of Adam; its highest value.
    schedule: STAIRCASE, times 0.9 every 1,000 steps (published); or COSINE, up
      to the highest value in a linear start, then down to almost 0.
    loss: BY_V_STAR, sigmoid cross-entropy where v* is always 0 or 1, else the
      squared error (published); or CROSS_ENTROPY, always.
    restarts: from so many initial weights; the one that comes closest to the
      points it has learned from is taken.
    clip_norm: the joint norm that gradients are scaled down to.
    seed: of the initial weights and the batches.
  """
  __slots__ = ()


PUBLISHED = Settings(
    batch_size=32, max_number_of_steps=30000, learning_rate=0.1,
    schedule=STAIRCASE, loss=BY_V_STAR, restarts=1, clip_norm=5.0, seed=0)
# Found by trying: mentornet_models/README.md has the errors of both.
BEST = PUBLISHED._replace(
    batch_size=256, max_number_of_steps=40000, learning_rate=0.06,
    schedule=COSINE, loss=CROSS_ENTROPY, restarts=3)

_DECAY_FACTOR, _STEPS_PER_DECAY = 0.9, 1000
_WARM_UP_STEPS, _LAST_RATE = 1000, 1e-4  # The latter as a share of the highest.

IN_WORDS = {  # For a card.
    STAIRCASE: 'times %g every %d steps' % (_DECAY_FACTOR, _STEPS_PER_DECAY),
    COSINE: 'reached in %d steps, then falling to %g of it as a cosine does'
            % (_WARM_UP_STEPS, _LAST_RATE),
    BY_V_STAR: 'sigmoid cross-entropy if v* is always 0 or 1, else the squared '
               'error',
    CROSS_ENTROPY: 'sigmoid cross-entropy',
}
_EPOCHS = 'mentornet/epoch_embedding'
INITIAL_STDDEV = 0.1  # Of the embeddings and dense layers.
_NEXT_START = 1000003  # From the seed of one start to that of the next.
WORST_SHARE = 0.01
REPORTS = 100


def learn(features, v_star, settings=BEST, on_step=None):
  """Fits the network to v* by Adam.

  The same arguments give the same weights on the same runtime. It runs on one
  core of the CPU: the network is too small to gain from more.

  Args:
    features: [N, 4] float32: loss, difference, label, epoch percentage.
    v_star: [N] float32, in [0, 1].
    settings: a `Settings`.
    on_step: called some hundred times with (steps done in all, loss of the
      batch).

  Returns:
    name -> array, with the names and shapes of `mentornet.SHAPES`.

  Raises:
    RunError: the loss, the weights or what they give is no longer finite.
  """
  steps, starts = settings.max_number_of_steps, []
  for start in range(settings.restarts):
    report = on_step and functools.partial(_report, on_step, start * steps)
    weights = _learn_once(
        features, v_star,
        settings._replace(seed=settings.seed + _NEXT_START * start), report)
    v = apply_network(mentornet.from_weights(weights), features)
    error = np.abs(v - v_star).mean()
    if not np.isfinite(error):
      raise RunError(_DIVERGED)
    starts.append((error, start, weights))
  return min(starts)[-1]  # No two have the same number.


def _report(on_step, done_before, done, loss):
  on_step(done_before + done, loss)


def _learn_once(features, v_star, settings, on_step):
  """`learn` from one start."""
  with tf.Graph().as_default():
    tf.set_random_seed(settings.seed)
    variables = initial_variables()
    # Drawn in the graph, so that a step needs nothing from Python.
    rows = tf.random.uniform([settings.batch_size], maxval=len(features),
                             dtype=tf.int32, seed=0)
    batch, target = (tf.gather(tf.constant(x, tf.float32), rows)
                     for x in (features, v_star))
    loss = batch_loss(mentornet.network(batch, variables), target,
                      settings.loss == CROSS_ENTROPY
                      or curriculum.is_binary(v_star))
    step = tf.train.get_or_create_global_step()
    train_op = minimize(loss, list(variables.values()), step, settings)
    with tf.Session(config=_one_core()) as session:
      session.run(tf.global_variables_initializer())
      _run(session, train_op, loss, settings.max_number_of_steps, on_step)
      weights = session.run(variables)
  if not all(np.isfinite(value).all() for value in weights.values()):
    raise RunError(_DIVERGED)
  weights[_EPOCHS] = fill_epochs(weights[_EPOCHS], features[:, 3])
  return weights


_DIVERGED = ('learning diverged: the loss or a weight is no longer finite; '
             'try a smaller learning rate')


def _run(session, train_op, loss, num_steps, on_step):
  """Runs the steps; a plain callable costs less per step than session.run."""
  plain_step = session.make_callable(train_op)
  step_with_loss = session.make_callable([loss, train_op])
  every = max(1, num_steps // REPORTS)
  for done in range(1, num_steps + 1):
    if done % every and done < num_steps:
      plain_step()
      continue
    value, _ = step_with_loss()
    if not np.isfinite(value):
      raise RunError(_DIVERGED)
    if on_step:
      on_step(done, value)


def fill_epochs(embedding, epochs):
  """The embedding with a row for every percentage, also those without points.

  What a percentage without points has are the random numbers that it began
  with; it takes the row of the nearest percentage that has points.

  Args:
    embedding: [E, D], a row for each epoch percentage.
    epochs: [N], the percentages that there are points of.

  Returns:
    [E, D].
  """
  seen = np.unique(np.asarray(epochs, np.int64))
  distance = np.abs(np.arange(len(embedding))[:, np.newaxis] - seen)  # [E, S]
  return embedding[seen[distance.argmin(axis=1)]]


def initial_variables():
  """Variables to start from, name -> variable.

  Embeddings and dense weights are truncated normal, small; LSTM kernels are
  Glorot uniform; biases are 0.
  """
  variables = collections.OrderedDict()
  for seed, (name, shape) in enumerate(mentornet.SHAPES):
    if len(shape) == 1:
      initializer = tf.zeros_initializer()
    elif 'lstm' in name:
      initializer = tf.glorot_uniform_initializer(seed=seed)
    else:
      initializer = tf.truncated_normal_initializer(
          stddev=INITIAL_STDDEV, seed=seed)
    variables[name] = tf.get_variable(name, shape, initializer=initializer)
  return variables


def batch_loss(logits, v_star, cross_entropy):
  """What is minimised: the mean loss of a batch, a scalar.

  Args:
    logits: [B], before the sigmoid.
    v_star: [B].
    cross_entropy: sigmoid cross-entropy, else squared error of the weight.
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
  """Gradients scaled down together where their joint norm exceeds `clip_norm`.

  Those of the embeddings are made dense first: one row that a batch looks up
  several times would otherwise count as several.
  """
  gradients = [tf.convert_to_tensor(gradient)
               for gradient in tf.gradients(loss, variables)]
  return tf.clip_by_global_norm(gradients, clip_norm)[0]


def apply_network(network, features):
  """Weights v [N] float32 that a network gives to features [N, 4].

  Args:
    network: features -> v, as from `mentornet.load`.
    features: [N, 4] array.

  Raises:
    RunError: a formula in the place of a network failed.
  """
  with tf.Graph().as_default():
    v = network(tf.constant(features, tf.float32))
    with tf.Session(config=_one_core()) as session:
      try:
        return session.run(v)
      except tf.errors.UnknownError as error:
        raise RunError(mentornet.formula_error(error) or runtime.reason(error))


def held_out_errors(network, features, v_star, phases=()):
  """How far a network is from v* on points that it has not learned from.

  Args:
    network: features -> v, as from `mentornet.load`.
    features: [N, 4] array.
    v_star: [N] array.
    phases: (first, last) epoch percentages to report on their own.

  Returns:
    A dict for JSON: number of rows, mean absolute error, the same over the
    worst 1% of the rows, and a list of such dicts for the phases.
  """
  error = np.abs(apply_network(network, features).astype(np.float64) - v_star)
  result = _summary(error)
  result['phases'] = []
  for first, last in phases:
    inside = (features[:, 3] >= first) & (features[:, 3] <= last)
    result['phases'].append(
        dict(_summary(error[inside]), epoch_percent=[first, last]))
  return result


def _summary(error):
  worst = np.sort(error)[-max(1, int(round(len(error) * WORST_SHARE))):]
  return {
      'rows': len(error),
      'mean_absolute_error': float(error.mean()) if len(error) else None,
      'worst_1_percent': float(worst.mean()) if len(error) else None,
  }


def _one_core():
  config = tf.ConfigProto(
      intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
  config.device_count['GPU'] = 0
  return config
