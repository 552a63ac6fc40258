"""What several students share: variables in float32, dropout, collections."""
from mentormix.runtime import slim, tf

# Collection of logits [B, K] of auxiliary classifiers; training adds their
# loss, times `Student.auxiliary_weight`, to that of the student.
AUXILIARY_LOGITS = 'auxiliary_logits'


def float32_variables(dtype):
  """Returns a custom getter for layers whose arithmetic is in `dtype`.

  The variables are float32. A layer that asks for one in `dtype` gets it cast.
  """
  def get(getter, name, *args, **kwargs):
    asked = kwargs.pop('dtype', tf.float32)
    variable = getter(name, *args, dtype=tf.float32, **kwargs)
    return (tf.cast(variable, dtype) if asked == dtype != tf.float32
            else variable)
  return get


REPLACED = 'replaced'  # Of `update_statistics`; see `updates`.


def updates(update_statistics, decay):
  """How slim.batch_norm updates its moving statistics, as its keywords.

  The collections are a list, since slim would build another layer for the
  string, which TensorFlow 2.x lacks; and never None, for which slim updates at
  once.

  Args:
    update_statistics: whether a pass adds updates to tf.GraphKeys.UPDATE_OPS;
      `REPLACED`: those after which the statistics are those of the batch.
    decay: of the moving statistics, per step.
  """
  collections = [tf.GraphKeys.UPDATE_OPS] if update_statistics else []
  return dict(decay=0.0 if update_statistics == REPLACED else decay,
              updates_collections=collections)


def normalized(is_training, update_statistics, activation_fn, decay, epsilon):
  """Returns an arg_scope: convolutions and depthwise ones with batch norm.

  Args:
    is_training: whether batch norm uses the statistics of the batch.
    update_statistics: as of `updates`.
    activation_fn: what follows a convolution and its batch norm, a function of
      a tensor.
    decay: of the moving statistics, per step.
    epsilon: added to the variance.
  """
  batch_norm = dict(
      epsilon=epsilon, scale=True, fused=True, is_training=is_training,
      **updates(update_statistics, decay))
  # normal(0, sqrt(2 / (k * k * out))).
  initializer = tf.variance_scaling_initializer(
      2.0, mode='fan_out', distribution='untruncated_normal')
  with slim.arg_scope([slim.conv2d, slim.separable_conv2d], padding='SAME',
                      weights_initializer=initializer,
                      activation_fn=activation_fn,
                      normalizer_fn=slim.batch_norm,
                      normalizer_params=batch_norm), \
      slim.arg_scope([slim.batch_norm], **batch_norm) as scope:
    return scope


def logits(x, num_classes, dropout_keep, is_training):
  """Averages over the image, drops and classifies: [B, H, W, C] -> [B, K].

  Whatever the type of `x`, this is in float32.
  """
  x = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])  # [B, C]
  x = dropout(x, dropout_keep, is_training)
  # uniform(-1 / sqrt(C), 1 / sqrt(C)).
  return slim.fully_connected(
      x, num_classes, activation_fn=None, scope='Logits',
      weights_initializer=tf.variance_scaling_initializer(
          1 / 3.0, mode='fan_in', distribution='uniform'))


def dropout(x, keep, is_training):
  """Keeps each number with probability `keep`, divided by `keep`.

  In training, what is dropped follows from the graph's seed, the global step
  and the number of calls before, so that a resumed run drops the same.

  Args:
    x: [B, C] float32.
    keep: probability, above 0.
    is_training: whether to drop anything.

  Returns:
    [B, C] float32.
  """
  if not is_training or keep == 1:
    return x
  graph = tf.get_default_graph()
  calls = graph.get_collection_ref('dropout_calls')
  calls.append(len(calls))
  step = tf.train.get_global_step()
  step = 0 if step is None else tf.identity(step)
  seed = tf.stack([tf.constant((graph.seed or 0) + (len(calls) << 48),
                               tf.int64), tf.cast(step, tf.int64)])
  kept = tf.random.stateless_uniform(tf.shape(x), seed) < keep
  return tf.where(kept, x / keep, tf.zeros_like(x))
