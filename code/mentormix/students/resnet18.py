"""ResNet-18 for photographs, and PreAct ResNet-18 for small images.

Both have four stages of two units, with 64 to 512 channels. B is the batch
size, K the number of classes.
"""
import contextlib

from mentormix.runtime import slim, slim_nets, tf
from mentormix.students import blocks

WEIGHT_DECAY = 5e-4  # Of all variables.
_WIDTHS = (64, 128, 256, 512)
_BATCH_NORM_DECAY = 0.9
_BATCH_NORM_EPSILON = 1e-5


def resnet18(images, num_classes, is_training, update_statistics=True,
             dtype=tf.float32, dropout_keep=1.0):
  """ResNet-18 (He et al., 2015, arXiv:1512.03385), by default for 224x224.

  It is the network of the published results of NCR (Iscen et al., 2022) on
  images with noise from the web, in google-research/scenic.

  Args:
    images: [B, H, W, 3] float32 in [-1, 1].
    num_classes: K.
    is_training: whether batch norm uses the statistics of the batch.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16. With bfloat16, the
      variables, the statistics and all that follows the last average pooling
      stay float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  with _scopes('ResNet18', is_training, update_statistics, dtype):
    x = slim.conv2d(tf.cast(images, dtype), 64, 7, stride=2, scope='Stem')
    x = slim.max_pool2d(x, 3, stride=2, padding='SAME')
    x = _stages(x, _unit)
    return blocks.logits(x, num_classes, dropout_keep, is_training)


def preact_resnet18(images, num_classes, is_training, update_statistics=True,
                    dtype=tf.float32, dropout_keep=1.0):
  """PreAct ResNet-18 (He et al., 2016, arXiv:1603.05027), for 32x32 pixels.

  It has the form of the code of DivideMix (Li et al., 2020), which most later
  papers on noisy labels use: a stem with batch norm and ReLU, and neither after
  the last unit. Strided convolutions pad both sides, as PyTorch does. Arguments
  and result are as of `resnet18`.
  """
  with _scopes('PreActResNet18', is_training, update_statistics, dtype):
    x = slim.conv2d(tf.cast(images, dtype), 64, 3, scope='Stem')
    x = _stages(x, _preact_unit)
    return blocks.logits(x, num_classes, dropout_keep, is_training)


def _scopes(name, is_training, update_statistics, dtype):
  """A context: variables below `name`, convolutions with norm and ReLU."""
  stack = contextlib.ExitStack()
  stack.enter_context(tf.variable_scope(
      name, custom_getter=blocks.float32_variables(dtype)))
  stack.enter_context(slim.arg_scope(blocks.normalized(
      is_training, update_statistics, tf.nn.relu, _BATCH_NORM_DECAY,
      _BATCH_NORM_EPSILON)))
  return stack


def _stages(x, unit):
  """Four stages of two units; all but the first halve height and width."""
  for stage, width in enumerate(_WIDTHS, start=1):
    for n in range(2):
      with tf.variable_scope(f'Unit_{stage}_{n}'):
        x = unit(x, width, 2 if stage > 1 and n == 0 else 1)
  return x


def _unit(x, width, stride):
  """Two convolutions with batch norm, plus `x`, projected if need be; ReLU."""
  y = slim.conv2d(x, width, 3, stride=stride, scope='Conv_1')
  y = slim.conv2d(y, width, 3, activation_fn=None, scope='Conv_2')
  if stride > 1 or width != x.shape[-1].value:
    x = slim.conv2d(x, width, 1, stride=stride, activation_fn=None,
                    scope='Shortcut')
  return tf.nn.relu(x + y)


def _preact_unit(x, width, stride):
  """Batch norm, ReLU, convolution, twice, plus `x`, projected if need be."""
  with slim.arg_scope([slim.conv2d], activation_fn=None, normalizer_fn=None,
                      biases_initializer=None), \
      slim.arg_scope([slim.batch_norm], activation_fn=tf.nn.relu):
    y = slim.batch_norm(x, scope='Norm_1')
    if stride > 1 or width != x.shape[-1].value:
      x = slim.conv2d(y, width, 1, stride=stride, scope='Shortcut')
    y = slim_nets.resnet_utils.conv2d_same(y, width, 3, stride, scope='Conv_1')
    y = slim.batch_norm(y, scope='Norm_2')
    return x + slim.conv2d(y, width, 3, scope='Conv_2')
