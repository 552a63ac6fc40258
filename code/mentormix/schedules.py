"""Converts between steps, epochs and percentages.

Learning rate and epoch percentage follow the float arithmetic that the
published code has in a training step; `testdata/` has its numbers.
"""
import numpy as np

from mentormix.messages import UserError
from mentormix.runtime import tf

NUM_EPOCH_PERCENTS = 100
FORGETTING_EPOCHS = 10  # Until Co-teaching forgets its full rate.
WEIGHT_AVERAGE_DECAY = 0.9999


def epoch_percent(step, max_steps):
  """How far training is: floor(100 * step / max_steps), 0 to 100.

  Args:
    step: int64 scalar, steps done before this one.
    max_steps: total number of steps.

  Returns:
    int32 scalar, the float64 product of `step` and 100 / max_steps, rounded
    down. The published graph is step / max_steps * 100, of which TensorFlow's
    graph optimizer makes this product when a session runs a step. Of 200,000
    steps, each has the percentage of integer arithmetic; for some max_steps a
    boundary comes one step later: after 3 of 12 steps it is 24.
  """
  # The product is also what constants and an exported step should give.
  percents_per_step = 1 / max_steps * NUM_EPOCH_PERCENTS
  return tf.cast(tf.cast(step, tf.float64) * percents_per_step, tf.int32)


def decay_steps(num_examples, batch_size, num_epochs_per_decay):
  """Steps in so many epochs, between two cuts of the rate; a fraction."""
  return num_examples / batch_size * num_epochs_per_decay


def learning_rate(step, initial, decay_factor, steps_per_decay, warmup_steps=0):
  """initial * decay_factor^floor(step / steps_per_decay), float32 scalar.

  Over the first `warmup_steps` it grows linearly to that (not in the published
  code; Goyal et al., arXiv 1706.02677, section 2.2).
  """
  rate = tf.train.exponential_decay(
      initial, step, steps_per_decay, decay_factor, staircase=True)
  return _warmed_up(rate, step, warmup_steps)


def cosine_rate(step, initial, max_steps, warmup_steps=0):
  """initial * (1 + cos(pi * step / max_steps)) / 2, float32 scalar.

  It is 0 from `max_steps` on (Loshchilov and Hutter, arXiv 1608.03983, without
  restarts). It warms up as `learning_rate`, as a factor.
  """
  done = tf.minimum(tf.cast(step, tf.float64) / max_steps, 1.0)
  rate = initial * (1 + tf.cos(np.pi * done)) / 2
  return _warmed_up(tf.cast(rate, tf.float32), step, warmup_steps)


def linear_rate(step, initial, max_steps, warmup_steps=0):
  """A rate that falls in a straight line to 0, float32 scalar.

  It grows linearly to `initial` over the first `warmup_steps`, falls linearly
  from there, and is 0 from `max_steps` on.
  """
  left = tf.cast(max_steps - step, tf.float32) / float(
      max(1, max_steps - warmup_steps))
  rate = initial * tf.clip_by_value(left, 0.0, 1.0)
  return _warmed_up(rate, step, warmup_steps)


def stepped_rate(step, initial, decay_factor, starts, warmup_steps=0):
  """initial * decay_factor^(number of `starts` <= step), float32 scalar.

  Args:
    step: int64 scalar, steps done before this one.
    initial, decay_factor: of the rate.
    starts: numbers of steps after which the factor applies; may be fractions.
    warmup_steps: as in `learning_rate`.
  """
  past = tf.cast(step, tf.float64) >= tf.constant(list(starts), tf.float64)
  power = tf.reduce_sum(tf.cast(past, tf.float32))
  return _warmed_up(initial * tf.pow(decay_factor, power), step, warmup_steps)


def _warmed_up(rate, step, warmup_steps):
  if not warmup_steps:
    return rate
  return rate * tf.minimum(
      1.0, tf.cast(step + 1, tf.float32) / float(warmup_steps))


def configured_rate(config, step, num_examples, num_replicas=1):
  """The learning rate that the settings of a run describe, float32 scalar.

  Args:
    config: a `config.TrainConfig`.
    step: int64 scalar, steps done before this one.
    num_examples: number of examples in an epoch.
    num_replicas: batches in a step.
  """
  steps = lambda epochs: decay_steps(
      num_examples, config.batch_size * num_replicas, epochs)
  if config.learning_rate_schedule == 'cosine':
    return cosine_rate(step, config.learning_rate, config.max_number_of_steps,
                       config.warmup_steps)
  if config.learning_rate_schedule == 'linear':
    return linear_rate(step, config.learning_rate, config.max_number_of_steps,
                       config.warmup_steps)
  if config.learning_rate_schedule == 'steps':
    return stepped_rate(
        step, config.learning_rate, config.learning_rate_decay_factor,
        [steps(epoch) for epoch in decay_epochs(config.decay_epochs)],
        config.warmup_steps)
  return learning_rate(
      step, config.learning_rate, config.learning_rate_decay_factor,
      steps(config.num_epochs_per_decay), config.warmup_steps)


def decay_epochs(text):
  """The epochs in '40,100', floats in ascending order.

  Raises:
    UserError: `text` is not such a list.
  """
  try:
    epochs = [float(epoch) for epoch in text.split(',')]
  except ValueError:
    epochs = []
  if not epochs or not all(
      a < b < float('inf') for a, b in zip([0.0] + epochs, epochs)):
    raise UserError(f'--decay_epochs={text} is not ascending epochs, as in '
                    '40,100, which --learning_rate_schedule=steps needs')
  return epochs


def forgotten_share(forget_rate, step, steps_per_epoch):
  """R(t) of Co-teaching: forget_rate * min(epoch / 10, 1), float32 scalar.

  Args:
    forget_rate: the share of the batch that is left out from epoch 10 on.
    step: int64 scalar, steps done before this one.
    steps_per_epoch: a number.
  """
  epoch = tf.cast(step, tf.float64) / steps_per_epoch
  return tf.cast(
      forget_rate * tf.minimum(epoch / FORGETTING_EPOCHS, 1.0), tf.float32)


def weight_average_decay(step):
  """Decay of the weights' moving average: min(0.9999, (1 + step)/(10 + step)).

  Args:
    step: int64 scalar, steps done before this one.

  Returns:
    float32 scalar.
  """
  step = tf.cast(step, tf.float32)
  return tf.minimum(WEIGHT_AVERAGE_DECAY, (1.0 + step) / (10.0 + step))


def dropout_table(text):
  """Example dropout rate per epoch percentage.

  Args:
    text: 'rate,length,rate,length,...'; lengths in percent, summing to 100.
      '0.5,17,0.05,78,1.0,5' drops half of the examples during the first 17%.

  Returns:
    A list of 100 rates.

  Raises:
    UserError: `text` is not such a list.
  """
  parts = text.split(',')
  try:
    rates = [float(rate) for rate in parts[::2]]
    lengths = [int(length) for length in parts[1::2]]
  except ValueError:
    rates, lengths = [], []
  if (len(rates) != len(lengths) or sum(lengths) != NUM_EPOCH_PERCENTS
      or min(lengths) < 0 or not all(0 <= rate <= 1 for rate in rates)):
    raise UserError(
        f'--example_dropout_rates={text} is not pairs rate,percent, with rates '
        'from 0 to 1 and percents that sum to 100, as in 0.5,17,0.0,83')
  return [rate for rate, length in zip(rates, lengths) for _ in range(length)]
