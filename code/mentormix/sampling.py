"""Random numbers that depend only on a seed and a step.

A resumed run draws the same numbers as an uninterrupted one. TensorFlow's
stateful random operations cannot do this, because their state is not saved in
checkpoints.
"""
from mentormix.runtime import tf

_STREAMS = 64  # Draws per step, in all samplers together.
_ROUNDS = 16  # Of rejection sampling; each accepts at least 95%.


def worker_seed(seed, worker):
  """The seed of a worker; worker 0 has the seed of the run, below 2**32."""
  return seed + (worker << 32)


class Sampler:
  """Draws for one step; each call gives different numbers.

  Draws are numbered from `first_stream` to 63. Two samplers of the same seed
  and step must not use the same ones.
  """

  def __init__(self, seed, step, first_stream=0):
    self._seed = seed
    self._step = tf.cast(step, tf.int64)
    self._stream = first_stream

  def _next_seed(self):
    self._stream += 1
    if self._stream > _STREAMS:
      raise ValueError(f'more than {_STREAMS} draws in a step')
    return tf.stack([tf.constant(self._seed, tf.int64),
                     self._step * _STREAMS + self._stream - 1])

  def uniform(self, shape, low=0.0, high=1.0):
    """float32 draws from [low, high)."""
    return tf.random.stateless_uniform(shape, self._next_seed(), low, high)

  def integers(self, shape, low, high):
    """int32 draws from low to high, both included."""
    return tf.random.stateless_uniform(shape, self._next_seed(), low, high + 1,
                                       tf.int32)

  def partners(self, v):
    """Draws j ~ Categorical(softmax(v)), one for each example, [B] int32.

    With replacement and at temperature 1 (published code; the paper has a
    temperature). A NaN weight counts as 0, so that the fault shows in the loss
    and not as an index out of range here.
    """
    logits = tf.where(tf.math.is_nan(v), tf.zeros_like(v), v)
    return tf.random.stateless_categorical(
        [logits], tf.size(v), self._next_seed(), dtype=tf.int32)[0]

  def beta(self, alpha, shape):
    """float32 draws from Beta(alpha, alpha), as a ratio of Gamma(alpha) draws.

    For an alpha near 0 both draws can underflow; the limit is then 0 or 1.
    """
    a, b = self._gamma(alpha, shape), self._gamma(alpha, shape)
    return tf.where(a + b > 0, a / (a + b), tf.ones_like(a))

  def _gamma(self, alpha, shape):
    """Draws from Gamma(alpha), by Marsaglia and Tsang (ACM TOMS 26, 2000).

    TensorFlow 1.15 has no stateless operation for it. The method needs an alpha
    of at least 1; for less, Gamma(alpha + 1) * U^(1 / alpha) is Gamma(alpha).
    """
    d = (alpha if alpha >= 1 else alpha + 1) - 1 / 3.0
    rounds = tf.concat([[_ROUNDS], shape], axis=0)
    x = tf.random.stateless_normal(rounds, self._next_seed())
    u = self.uniform(rounds)
    cube = (1 + x / (9 * d) ** 0.5) ** 3
    bound = x * x / 2 + d * (1 - cube + tf.log(tf.maximum(cube, 1e-30)))
    accepted = (cube > 0) & (tf.log(u) < bound)
    gamma = tf.ones(shape)
    for one, fits in zip(reversed(tf.unstack(cube)),
                         reversed(tf.unstack(accepted))):
      gamma = tf.where(fits, one, gamma)  # Finally, the first that fits.
    gamma *= d
    if alpha < 1:
      gamma *= self.uniform(shape) ** (1 / alpha)
    return gamma
