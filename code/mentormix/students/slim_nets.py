"""Networks of tf-slim itself, as students.

Each is built by tf-slim with its own arg_scope, so that the checkpoints of
tensorflow/models load. B is the batch size, K the number of classes.
"""
from typing import NamedTuple

from mentormix.runtime import slim, slim_nets as nets, tf
from mentormix.students import blocks

# tf-slim's ResNet-v1 was trained on images from 0 to 255 minus these, in RGB
# (vgg_preprocessing of tensorflow/models).
_MEANS = (123.68, 116.78, 103.94)


def resnet_v1_50(images, num_classes, is_training, update_statistics=True,
                 dtype=tf.float32, dropout_keep=1.0):
  """ResNet-50 (He et al., 2015, arXiv:1512.03385); images minus their mean.

  Args:
    images: [B, H, W, 3] float32 in [-1, 1].
    num_classes: K; 1000 for the published checkpoint.
    is_training: whether batch norm uses the statistics of the batch.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16; the variables and the
      logits are float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  logits, _ = _build(nets.resnet_v1.resnet_v1_50,
                     nets.resnet_v1.resnet_arg_scope,
                     images * 127.5 + 127.5 - tf.constant(_MEANS), num_classes,
                     is_training, update_statistics, dtype,
                     _Head('resnet_v1_50', dropout_keep))
  return logits


def resnet_v2_50(images, num_classes, is_training, update_statistics=True,
                 dtype=tf.float32, dropout_keep=1.0):
  """Pre-activation ResNet-50 (He et al., 2016); otherwise as `resnet_v1_50`.

  The published checkpoint has 1001 classes; class 0 is the background.
  """
  logits, _ = _build(nets.resnet_v2.resnet_v2_50,
                     nets.resnet_v2.resnet_arg_scope, images, num_classes,
                     is_training, update_statistics, dtype,
                     _Head('resnet_v2_50', dropout_keep))
  return logits


def inception_v3(images, num_classes, is_training, update_statistics=True,
                 dtype=tf.float32, dropout_keep=0.8):
  """Inception-v3 (Szegedy et al., 2015); otherwise as `resnet_v2_50`.

  A training pass that updates statistics also adds the logits [B, K] of the
  auxiliary classifier to `blocks.AUXILIARY_LOGITS`; others do not build it.
  What its dropout drops is drawn by tf-slim: it follows from the graph's seed,
  but a resumed run draws it anew.

  Args:
    dropout_keep: probability that a number is kept before the last layer.
  """
  has_auxiliary = is_training and update_statistics
  logits, points = _build(
      nets.inception_v3.inception_v3, nets.inception_v3.inception_v3_arg_scope,
      images, num_classes, is_training, update_statistics, dtype,
      dropout_keep_prob=dropout_keep, create_aux_logits=has_auxiliary,
      spatial_squeeze=False)
  if has_auxiliary:
    tf.add_to_collection(blocks.AUXILIARY_LOGITS,
                         _averaged(points['AuxLogits']))
  return logits


class _Head(NamedTuple):
  """A last layer as tf-slim builds it, after dropout, which it lacks."""
  scope: str  # Of the network.
  dropout_keep: float


def _build(network, arg_scope, images, num_classes, is_training,
           update_statistics, dtype, head=None, **options):
  """Builds a network of tf-slim in its own arg_scope, up to two changes.

  The updates of statistics go where `update_statistics` says, and there are no
  regularizers, since `Student.decay_loss` has them.

  Returns:
    (logits, points): [B, K] float32, and what tf-slim calls end points.
  """
  scope = arg_scope(weight_decay=0.0)
  conv2d = scope[slim.arg_scope_func_key(slim.conv2d)]
  batch_norm = conv2d['normalizer_params']
  updates = blocks.updates(update_statistics, batch_norm['decay'])
  getter = blocks.float32_variables(dtype)
  with tf.variable_scope(tf.get_variable_scope(), custom_getter=getter), \
      slim.arg_scope(scope), \
      slim.arg_scope([slim.conv2d],
                     normalizer_params=dict(batch_norm, **updates)), \
      slim.arg_scope([slim.batch_norm], **updates):
    logits, points = network(tf.cast(images, dtype),
                             None if head else num_classes,
                             is_training=is_training, **options)
    if head:
      with tf.variable_scope(head.scope):
        logits = slim.conv2d(
            blocks.dropout(logits, head.dropout_keep, is_training), num_classes,
            1, activation_fn=None, normalizer_fn=None, scope='logits')
  return _averaged(logits), points


def _averaged(logits):
  """[B, H, W, K] -> [B, K] float32; H and W are 1 up to the usual size."""
  return tf.reduce_mean(tf.cast(logits, tf.float32), [1, 2])
