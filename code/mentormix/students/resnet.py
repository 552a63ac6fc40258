"""Pre-activation residual networks for small images, slim style.

As in the published code, they have basic units, 3x3 convolutions without bias,
batch norm and leaky ReLU. Variables have the published names (`DW` is a
kernel), so that published checkpoints load. B is the batch size, K the number
of classes.
"""
from mentormix.runtime import slim, tf
from mentormix.students import blocks

WEIGHT_DECAY = 0.0002
LEAKINESS = 0.1
BATCH_NORM_EPSILON = 0.001
BATCH_NORM_DECAY = 0.9


def resnet(images, num_classes, is_training, depth, widths,
           update_statistics=True, dtype=tf.float32, dropout_keep=1.0):
  """A residual network of `depth` = 6n + 2 layers.

  Args:
    images: [B, H, W, 3] float32.
    num_classes: K.
    is_training: whether batch norm uses the statistics of the batch.
    depth: 6n + 2, for n basic units in each of three stages.
    widths: four numbers of channels: of the first convolution, of each stage.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16. With bfloat16, the
      variables, the statistics and all that follows the last average pooling
      stay float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  with tf.variable_scope(f'ResNet{depth}', custom_getter=_getter(dtype)), \
      slim.arg_scope(_arg_scope(is_training, update_statistics)):
    with tf.variable_scope('init'):
      x = slim.conv2d(tf.cast(images, dtype), widths[0], 3,
                      scope='init_conv')  # [B, H, W, C]
    for stage, width in enumerate(widths[1:], start=1):
      for unit in range((depth - 2) // 6):
        stride = 2 if stage > 1 and unit == 0 else 1
        with tf.variable_scope(f'unit_{stage}_{unit}'):
          x = _unit(x, width, stride, first=stage == 1 and unit == 0)
    with tf.variable_scope('unit_last'):
      x = _activate(batch_norm(x, scope='final_bn'))
    x = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])  # [B, C]
    x = blocks.dropout(x, dropout_keep, is_training)
    return slim.fully_connected(x, num_classes, scope='logit')


def _unit(x, width, stride, first):
  """One basic unit: batch norm, leaky ReLU, convolution, twice, plus shortcut.

  The very first unit activates *before* it normalises, and its shortcut starts
  after both; every other unit's shortcut starts at the input. Both are quirks
  of the published code.
  """
  if first:
    with tf.variable_scope('shared_activation'):
      x = batch_norm(_activate(x), scope='init_bn')
    shortcut = x
  else:
    shortcut = x
    with tf.variable_scope('residual_only_activation'):
      x = _activate(batch_norm(x, scope='init_bn'))
  with tf.variable_scope('sub1'):
    x = slim.conv2d(x, width, 3, stride=stride, scope='conv1')
  with tf.variable_scope('sub2'):
    x = _activate(batch_norm(x, scope='bn2'))
    x = slim.conv2d(x, width, 3, scope='conv2')
  return x + _match(shortcut, width, stride)


def _match(shortcut, width, stride):
  """Pools and zero-pads a shortcut to the unit's output, without weights."""
  extra = width - shortcut.shape[-1].value
  if stride > 1:
    shortcut = slim.avg_pool2d(shortcut, stride, stride, padding='VALID')
  if extra:
    before = extra // 2
    shortcut = tf.pad(shortcut,
                      [[0, 0], [0, 0], [0, 0], [before, extra - before]])
  return shortcut


def _activate(x):
  return tf.nn.leaky_relu(x, LEAKINESS)


def _arg_scope(is_training, update_statistics):
  """Defaults of every layer. Initialisers are those of the published code."""
  # normal(0, sqrt(2 / (k * k * out))) and uniform unit scaling, factor 1.
  conv_init = tf.variance_scaling_initializer(
      2.0, mode='fan_out', distribution='untruncated_normal')
  dense_init = tf.variance_scaling_initializer(
      1.0, mode='fan_in', distribution='uniform')
  with slim.arg_scope(
      [slim.conv2d, slim.fully_connected], activation_fn=None), \
      slim.arg_scope([slim.conv2d], padding='SAME', biases_initializer=None,
                     weights_initializer=conv_init), \
      slim.arg_scope([slim.fully_connected], weights_initializer=dense_init), \
      slim.arg_scope([batch_norm], is_training=is_training,
                     update_statistics=update_statistics) as scope:
    return scope


@slim.add_arg_scope
def batch_norm(x, is_training, update_statistics, scope):
  """Fused batch norm that updates its moving statistics as published.

  slim.batch_norm, when fused, updates the moving variance with the unbiased
  variance of the batch, which is n / (n - 1) times the published one.

  Args:
    x: [B, H, W, C].
    is_training: whether to normalise by the batch.
    update_statistics: whether to add updates to tf.GraphKeys.UPDATE_OPS;
      blocks.REPLACED: those that take the statistics of the batch.
    scope: of the variables.

  Returns:
    [B, H, W, C].
  """
  with tf.variable_scope(scope):
    variable = lambda name, value, trainable: slim.model_variable(
        name, x.shape[-1:].as_list(), trainable=trainable,
        initializer=tf.constant_initializer(value))
    beta = variable('beta', 0.0, True)
    gamma = variable('gamma', 1.0, True)
    moving_mean = variable('moving_mean', 0.0, False)
    moving_variance = variable('moving_variance', 1.0, False)
    if not is_training:
      y, _, _ = tf.nn.fused_batch_norm(
          x, gamma, beta, moving_mean, moving_variance,
          epsilon=BATCH_NORM_EPSILON, is_training=False)
      return y
    y, mean, variance = tf.nn.fused_batch_norm(
        x, gamma, beta, epsilon=BATCH_NORM_EPSILON)
    if update_statistics:
      n = tf.cast(tf.size(x) // x.shape[-1].value, tf.float32)
      variance *= (n - 1) / n
      if update_statistics == blocks.REPLACED:
        updates = moving_mean.assign(mean), moving_variance.assign(variance)
      else:
        updates = (_move_debiased(moving_mean, mean),
                   _move(moving_variance, variance))
      for update in updates:
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
    return y


def _move(average, value):
  return average.assign_sub((1 - BATCH_NORM_DECAY) * (average - value))


def _move_debiased(average, value):
  """Moves `average` as if it had not started at zero (Adam paper, section 3).

  Its two helpers carry the names that TensorFlow's own zero-debias gives them.
  """
  with tf.variable_scope(average.op.name):
    zeros = tf.zeros_initializer()
    biased = tf.get_variable(
        'biased', average.shape, initializer=zeros, trainable=False)
    local_step = tf.get_variable(
        'local_step', [], initializer=zeros, trainable=False)
  with tf.control_dependencies([value]):  # See training/microbatches.py.
    biased, local_step = _move(biased, value), local_step.assign_add(1.0)
  return average.assign(biased / (1 - tf.pow(BATCH_NORM_DECAY, local_step)))


def _getter(dtype):
  """Returns a custom getter of variables with published names, in float32.

  slim's `weights` are `DW` in published checkpoints. Convolutions with an input
  of type `dtype` get their kernels cast to it.
  """
  cast = blocks.float32_variables(dtype)

  def get(getter, name, *args, **kwargs):
    if name.endswith('/weights'):
      name = name[:-len('weights')] + 'DW'
    return cast(getter, name, *args, **kwargs)
  return get
