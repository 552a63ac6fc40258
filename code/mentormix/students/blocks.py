"""What several students share: variables in float32, dropout, collections."""
from mentormix.runtime import tf

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


def update_collections(update_statistics):
  """Where slim.batch_norm puts its updates, as its `updates_collections`.

  It is a list, since slim would build another layer for the string, which
  TensorFlow 2.x lacks; and never None, for which slim updates at once.
  """
  return [tf.GraphKeys.UPDATE_OPS] if update_statistics else []


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
