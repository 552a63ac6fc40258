"""Losses -> weights: features, moving average, burn-in, example dropout."""
from mentormix.mentornet import loss_traces
from mentormix.runtime import tf

AVERAGE_DECAY = 0.5


def threshold(loss, p):
  """The simplest MentorNet: 1 where loss < its p-percentile, else 0, [B].

  As published, 100 p is truncated to an integer in float64: 0.57 means 56%.
  This percentile is a constant of the graph, so its division by 100 stays one.
  """
  rank = loss_traces.nearest_rank(loss.shape.num_elements(), int(100 * p) / 100)
  return tf.cast(tf.less(loss, _from_top(loss, rank)), tf.float32)


def percentile(x, p):
  """The percentile of `x` by `loss_traces.rank_from_top`.

  Args:
    x: [B], with a static shape.
    p: which percentile, 0 to 1.

  Returns:
    A scalar.
  """
  return _from_top(x, loss_traces.rank_from_top(x.shape.num_elements(), p))


def _from_top(x, rank):
  """The value of this rank in `x`; 0 is the largest."""
  return tf.nn.top_k(x, k=rank + 1).values[rank]


def features_of(loss, average, epoch_percent):
  """Builds the input of a MentorNet.

  Args:
    loss: [B] float32.
    average: scalar, the moving average that is subtracted from the losses.
    epoch_percent: int32 scalar, percentage of training that is done, 0 to 99.

  Returns:
    [B, 4] float32; the label is always 0 (published code).
  """
  epoch = tf.cast(epoch_percent, tf.float32)
  return tf.stack([loss, loss - average, tf.zeros_like(loss),
                   epoch * tf.ones_like(loss)], axis=1)


class Mentor:
  """Turns the losses of a batch into weights; keeps their moving average.

  Each call site of the algorithm has its own Mentor (published code). A step
  changes one variable, the average. Its update is in tf.GraphKeys.UPDATE_OPS,
  so reading a weight changes nothing.
  """

  def __init__(self, network, epoch_percent, loss_p_percentile,
               burn_in_epoch=0, dropout_rates=None, name='mentor',
               uniform=tf.random.uniform):
    """Creates a Mentor.

    Args:
      network: features [B, 4] -> v [B], from `load`.
      epoch_percent: int32 scalar, percentage of training that is done.
      loss_p_percentile: the percentile of the losses to average, 0 to 1.
      burn_in_epoch: v = 1 while epoch_percent < burn_in_epoch - 1.
      dropout_rates: 100 rates, one for each epoch percentage, or None. Of B
        weights, exactly int(B * (1 - rate)) are kept (published code).
      name: of the variable scope.
      uniform: a callable, shape -> numbers from [0, 1), whose order decides
        which weights are kept.
    """
    self._network = network
    self._epoch_percent = epoch_percent
    self._loss_p = loss_p_percentile
    self._burn_in_epoch = burn_in_epoch
    self._dropout_rates = dropout_rates
    self._name = name
    self._uniform = uniform
    self.average = None  # float32 scalar, after the call.

  def __call__(self, loss):
    """Returns weights v [B] for losses [B]."""
    with tf.variable_scope(self._name):
      average = tf.get_variable(
          'loss_average', [], initializer=tf.zeros_initializer(),
          trainable=False)
      latest = percentile(loss, self._loss_p)
      self.average = AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * latest
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                           average.assign(self.average))
      v = self._network(features_of(loss, self.average, self._epoch_percent))
      v = tf.cond(self._epoch_percent < self._burn_in_epoch - 1,
                  lambda: tf.ones_like(v), lambda: v)
      return self._drop(v, loss.shape.num_elements())

  def _drop(self, v, batch_size):
    """Keeps int(B * (1 - rate)) random weights, sets the others to zero.

    The product is computed in float64. For rates in whole percents, float32
    gives the same at B = 32, 64, 128 or 256, but not at 25 or 100.
    """
    if not self._dropout_rates or not any(self._dropout_rates):
      return v
    kept = [int(batch_size * (1 - rate)) for rate in self._dropout_rates]
    num_kept = tf.gather(tf.constant(kept),
                         tf.minimum(self._epoch_percent, len(kept) - 1))
    # What sorts random numbers is a random permutation of 0 to B - 1.
    places = tf.argsort(self._uniform([batch_size]))
    return v * tf.cast(places < num_kept, tf.float32)
