"""Random numbers that follow from a seed and a step, and from nothing before.

A run that goes on from a checkpoint so draws what it would have drawn without
the break, which TensorFlow's ordinary random operations, with a state that is
not saved, cannot do.
"""
from mentormix.runtime import tf

_STREAMS = 64  # Draws of one step, of all samplers together.
_ROUNDS = 16  # Of rejection; at least 95% are accepted in each.


def worker_seed(seed, worker):
  """A seed for each worker of a run; that of the first is the run's own.

  Args:
    seed: 0 to 2**32 - 1.
    worker: its index.
  """
  return seed + (worker << 32)


class Sampler(object):
  """Draws for one step; each call gives numbers of its own."""

  def __init__(self, seed, step, first_stream=0):
    """Creates a sampler.

    Args:
      seed: an int, at least 0.
      step: int64 scalar.
      first_stream: 0 to 63, from where on draws are counted: two samplers of
        the same seed and step must not reach each other's.
    """
    self._seed = seed
    self._step = tf.cast(step, tf.int64)
    self._stream = first_stream

  def _next_seed(self):
    self._stream += 1
    if self._stream > _STREAMS:
      raise ValueError('more than %d draws in a step' % _STREAMS)
    return tf.stack([tf.constant(self._seed, tf.int64),
                     self._step * _STREAMS + self._stream - 1])

  def uniform(self, shape, low=0.0, high=1.0):
    """float32 draws from [low, high)."""
    return tf.random.stateless_uniform(shape, self._next_seed(), low, high)

  def integers(self, shape, low, high):
    """int32 draws from low to high, both of which may come."""
    return tf.random.stateless_uniform(shape, self._next_seed(), low, high + 1,
                                       tf.int32)

  def partners(self, v):
    """Draws j ~ Categorical(softmax(v)), one for each example, [B] int32.

    With replacement and at temperature 1 (published code; the paper has a
    temperature). A weight that is no number counts as 0: what has gone wrong is
    to show in the loss, not in an index out of range here.
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

    TensorFlow 1.15 has no stateless operation for it. The method is for alpha
    of at least 1; below, Gamma(alpha + 1) * U^(1 / alpha) is Gamma(alpha).
    """
    d = (alpha if alpha >= 1 else alpha + 1) - 1 / 3.0
    rounds = tf.concat([[_ROUNDS], shape], axis=0)
    x = tf.random.stateless_normal(rounds, self._next_seed())
    u = self.uniform(rounds)
    cube = (1 + x / (9 * d) ** 0.5) ** 3
    accepted = (cube > 0) & (
        tf.log(u) < x * x / 2 + d * (1 - cube + tf.log(tf.maximum(cube, 1e-30))))
    gamma = tf.ones(shape)
    for one, fits in zip(reversed(tf.unstack(cube)),
                         reversed(tf.unstack(accepted))):
      gamma = tf.where(fits, one, gamma)  # In the end, the first that fits.
    gamma *= d
    if alpha < 1:
      gamma *= self.uniform(shape) ** (1 / alpha)
    return gamma
