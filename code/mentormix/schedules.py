"""Converts between steps, epochs and percentages.

Learning rate and epoch percentage follow the float arithmetic that the
published code has in a training step; `testdata/` has its numbers.
"""
from mentormix.messages import UserError
from mentormix.runtime import tf

NUM_EPOCH_PERCENTS = 100
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
  """Steps between two cuts of the learning rate; a fraction, as published."""
  return num_examples / batch_size * num_epochs_per_decay


def learning_rate(step, initial, decay_factor, steps_per_decay, warmup_steps=0):
  """initial * decay_factor^floor(step / steps_per_decay), float32 scalar.

  Over the first `warmup_steps` it grows linearly to that (not in the published
  code; Goyal et al., arXiv 1706.02677, section 2.2).
  """
  rate = tf.train.exponential_decay(
      initial, step, steps_per_decay, decay_factor, staircase=True)
  if not warmup_steps:
    return rate
  return rate * tf.minimum(
      1.0, tf.cast(step + 1, tf.float32) / float(warmup_steps))


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
