"""Inception-ResNet-v2 (Szegedy et al., 2016, arXiv:1602.07261), slim style.

The network that the paper trains on web noise. Variables have the names and
shapes of the checkpoint that tensorflow/models published in 2016. The paper
of the network does not fix where convolutions have biases instead of batch
norm, nor the scale of each kind of block. B is the batch size, K the number of
classes.
"""
from mentormix.runtime import slim, tf
from mentormix.students import blocks

WEIGHT_DECAY = 4e-5  # Of weights and biases.
DROPOUT_KEEP = 0.8
AUXILIARY_WEIGHT = 0.4
SMALLEST_SIZE = 107  # Pixels; the auxiliary classifier pools over 5x5.
_BATCH_NORM_DECAY = 0.9997
_BATCH_NORM_EPSILON = 0.001

# Branches, whose outputs are concatenated. A branch is a chain of convolutions:
# name, which ends with the kernel; width; whether it halves the image.
_MIXED_5B = (
    (('Conv2d_1x1', 96),),
    (('Conv2d_0a_1x1', 48), ('Conv2d_0b_5x5', 64)),
    (('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96), ('Conv2d_0c_3x3', 96)))
_BLOCK35 = (
    (('Conv2d_1x1', 32),),
    (('Conv2d_0a_1x1', 32), ('Conv2d_0b_3x3', 32)),
    (('Conv2d_0a_1x1', 32), ('Conv2d_0b_3x3', 48), ('Conv2d_0c_3x3', 64)))
_MIXED_6A = (
    (('Conv2d_1a_3x3', 384, True),),
    (('Conv2d_0a_1x1', 256), ('Conv2d_0b_3x3', 256),
     ('Conv2d_1a_3x3', 384, True)))
_BLOCK17 = (
    (('Conv2d_1x1', 192),),
    (('Conv2d_0a_1x1', 128), ('Conv2d_0b_1x7', 160), ('Conv2d_0c_7x1', 192)))
_MIXED_7A = (
    (('Conv2d_0a_1x1', 256), ('Conv2d_1a_3x3', 384, True)),
    (('Conv2d_0a_1x1', 256), ('Conv2d_1a_3x3', 288, True)),
    (('Conv2d_0a_1x1', 256), ('Conv2d_0b_3x3', 288),
     ('Conv2d_1a_3x3', 320, True)))
_BLOCK8 = (
    (('Conv2d_1x1', 192),),
    (('Conv2d_0a_1x1', 192), ('Conv2d_0b_1x3', 224), ('Conv2d_0c_3x1', 256)))


def inception_resnet_v2(images, num_classes, is_training,
                        update_statistics=True, dtype=tf.float32,
                        dropout_keep=DROPOUT_KEEP):
  """The network, for images of 107x107 pixels or more, by default 299x299.

  Args:
    images: [B, H, W, 3] float32 in [-1, 1].
    num_classes: K; 1001 for the published checkpoint, where class 0 is the
      background.
    is_training: whether batch norm uses the statistics of the batch, and
      dropout is on.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics, and to `blocks.AUXILIARY_LOGITS`
      the logits [B, K] of the auxiliary classifier. Without, there is none.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16. With bfloat16, the
      variables, the statistics and all that follows the last average pooling
      stay float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  with tf.variable_scope('InceptionResnetV2',
                         custom_getter=blocks.float32_variables(dtype)), \
      slim.arg_scope(_arg_scope(is_training, update_statistics)):
    x = _stem(tf.cast(images, dtype))  # [B, 35, 35, 192] for 299x299 pixels.
    x = _concatenated('Mixed_5b', x, _MIXED_5B, _averaged)  # 320 channels.
    with tf.variable_scope('Repeat'):
      for n in range(1, 11):
        x = _residual(f'block35_{n}', x, _BLOCK35, 0.17)
    x = _concatenated('Mixed_6a', x, _MIXED_6A, _halved)  # [B, 17, 17, 1088]
    with tf.variable_scope('Repeat_1'):
      for n in range(1, 21):
        x = _residual(f'block17_{n}', x, _BLOCK17, 0.1)
    if is_training and update_statistics:
      tf.add_to_collection(blocks.AUXILIARY_LOGITS,
                           _auxiliary_logits(x, num_classes))
    x = _concatenated('Mixed_7a', x, _MIXED_7A, _halved)  # [B, 8, 8, 2080]
    with tf.variable_scope('Repeat_2'):
      for n in range(1, 10):
        x = _residual(f'block8_{n}', x, _BLOCK8, 0.2)
    x = _residual('Block8', x, _BLOCK8, 1.0, activation=None)
    x = slim.conv2d(x, 1536, 1, scope='Conv2d_7b_1x1')
    x = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])  # [B, 1536]
    x = blocks.dropout(x, dropout_keep, is_training)
    with tf.variable_scope('Logits'):
      return slim.fully_connected(x, num_classes, activation_fn=None,
                                  scope='Logits')


def _arg_scope(is_training, update_statistics):
  """Defaults of every layer; batch norm has no gamma."""
  batch_norm = dict(
      epsilon=_BATCH_NORM_EPSILON, fused=True, is_training=is_training,
      **blocks.updates(update_statistics, _BATCH_NORM_DECAY))
  with slim.arg_scope([slim.conv2d], activation_fn=tf.nn.relu, padding='SAME',
                      normalizer_fn=slim.batch_norm,
                      normalizer_params=batch_norm), \
      slim.arg_scope([slim.max_pool2d], stride=2, padding='VALID') as scope:
    return scope


def _stem(x):
  """Divides height and width by about 8; 192 channels."""
  x = slim.conv2d(x, 32, 3, stride=2, padding='VALID', scope='Conv2d_1a_3x3')
  x = slim.conv2d(x, 32, 3, padding='VALID', scope='Conv2d_2a_3x3')
  x = slim.conv2d(x, 64, 3, scope='Conv2d_2b_3x3')
  x = slim.max_pool2d(x, 3)
  x = slim.conv2d(x, 80, 1, padding='VALID', scope='Conv2d_3b_1x1')
  x = slim.conv2d(x, 192, 3, padding='VALID', scope='Conv2d_4a_3x3')
  return slim.max_pool2d(x, 3)


def _branches(x, branches):
  """The outputs of all branches, as a list."""
  outputs = []
  for k, branch in enumerate(branches):
    with tf.variable_scope(f'Branch_{k}'):
      y = x
      for name, width, *halves in branch:
        kernel = [int(n) for n in name.rpartition('_')[2].split('x')]
        how = dict(stride=2, padding='VALID') if halves else {}
        y = slim.conv2d(y, width, kernel, scope=name, **how)
      outputs.append(y)
  return outputs


def _concatenated(scope, x, branches, last):
  """The branches and, by the function `last`, one more of `x`, in a row."""
  with tf.variable_scope(scope):
    outputs = _branches(x, branches)
    with tf.variable_scope(f'Branch_{len(branches)}'):
      outputs.append(last(x))
  return tf.concat(outputs, axis=3)


def _averaged(x):
  x = slim.avg_pool2d(x, 3, stride=1, padding='SAME')
  return slim.conv2d(x, 64, 1, scope='Conv2d_0b_1x1')


def _halved(x):
  return slim.max_pool2d(x, 3)


def _residual(scope, x, branches, scale, activation=tf.nn.relu):
  """Adds `scale` times the branches, projected to the width of `x`."""
  with tf.variable_scope(scope):
    y = tf.concat(_branches(x, branches), axis=3)
    y = slim.conv2d(y, x.shape[-1].value, 1, activation_fn=None,
                    normalizer_fn=None, scope='Conv2d_1x1')
    x += scale * y
    return x if activation is None else activation(x)


def _auxiliary_logits(x, num_classes):
  """A small classifier of the middle of the network, [B, K] float32.

  The kernel of its second convolution covers the whole map, whatever its name
  says, so that its weights fit images of one size only.
  """
  with tf.variable_scope('AuxLogits'):
    x = slim.avg_pool2d(x, 5, stride=3, padding='VALID')
    x = slim.conv2d(x, 128, 1, scope='Conv2d_1b_1x1')
    x = slim.conv2d(x, 768, x.shape[1:3].as_list(), padding='VALID',
                    scope='Conv2d_2a_5x5')
    x = tf.cast(x[:, 0, 0, :], tf.float32)  # [B, 768]
    return slim.fully_connected(x, num_classes, activation_fn=None,
                                scope='Logits')
