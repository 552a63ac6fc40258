"""A wide, shallow network that learns small images in few steps, slim style.

It has the form of airbench94 (Jordan, 2024, arXiv:2404.00498): a first layer
that whitens the image, then stages of two 3x3 convolutions, each with batch
norm of fixed scale. ReLU takes the place of GELU, which costs a CPU more. B is
the batch size, K the number of classes.
"""
import numpy as np

from mentormix.runtime import slim, tf
from mentormix.students import blocks

WEIGHT_DECAY = 0.0005  # Of all convolutions and the last layer.
SCOPE = 'Fast'
_WHITENING = f'{SCOPE}/Whitening'
_PATCH = 2  # Height and width of the patches that are whitened.
_VARIANCE = 5e-4  # Added to the variance of a patch in each direction.
_BATCH_NORM_DECAY = 0.9
_BATCH_NORM_EPSILON = 1e-5
_SCALE = 1 / 3  # Of the logits.


def fast(images, num_classes, is_training, widths, update_statistics=True,
         dtype=tf.float32, dropout_keep=1.0):
  """The network.

  Args:
    images: [B, H, W, 3] float32 in [-1, 1], H and W at least 16.
    num_classes: K.
    is_training: whether batch norm uses the statistics of the batch.
    widths: numbers of channels of the stages.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16. With bfloat16, the
      variables, the statistics and all that follows the last pooling stay
      float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  batch_norm = dict(
      epsilon=_BATCH_NORM_EPSILON, fused=True, is_training=is_training,
      activation_fn=tf.nn.relu,
      **blocks.updates(update_statistics, _BATCH_NORM_DECAY))
  with tf.variable_scope(SCOPE,
                         custom_getter=blocks.float32_variables(dtype)), \
      slim.arg_scope([slim.conv2d], activation_fn=None,
                     biases_initializer=None), \
      slim.arg_scope([slim.batch_norm], **batch_norm):
    # A run starts with the values of `whitening`. Only the biases train.
    x = slim.conv2d(tf.cast(images, dtype), 2 * 3 * _PATCH ** 2, _PATCH,
                    padding='VALID', trainable=False, scope='Whitening')
    x = tf.nn.relu(slim.bias_add(x, scope='Whitening'))
    for stage, width in enumerate(widths, start=1):
      with tf.variable_scope(f'Stage_{stage}'):
        x = slim.conv2d(x, width, 3, weights_initializer=_identity,
                        scope='Conv_1')
        x = slim.max_pool2d(x, 2, scope='Pool')
        x = slim.batch_norm(x, scope='Norm_1')
        x = slim.conv2d(x, width, 3, weights_initializer=_identity,
                        scope='Conv_2')
        x = slim.batch_norm(x, scope='Norm_2')
    x = tf.reduce_max(tf.cast(x, tf.float32), [1, 2])  # [B, C]
    x = blocks.dropout(x, dropout_keep, is_training)
    return _SCALE * slim.fully_connected(
        x, num_classes, activation_fn=None, biases_initializer=None,
        scope='Logits', weights_initializer=tf.variance_scaling_initializer(
            1.0, mode='fan_in', distribution='untruncated_normal'))


def _identity(shape, dtype=tf.float32, partition_info=None):
  """An initializer: the first filters pass a channel on, others are random."""
  del partition_info
  height, width, inputs, filters = shape
  # uniform(-1 / sqrt(n), 1 / sqrt(n)), n numbers going into a filter.
  noise = tf.variance_scaling_initializer(
      1 / 3.0, mode='fan_in', distribution='uniform')(shape, dtype)
  passing = np.zeros(shape)
  first = np.arange(min(inputs, filters))
  passing[height // 2, width // 2, first, first] = 1
  return tf.where(tf.broadcast_to(tf.range(filters) < inputs, shape),
                  tf.constant(passing, dtype), noise)


def whitening(images):
  """The first layer, which makes 2x2 patches of the images white.

  Args:
    images: [N, H, W, 3] in [-1, 1], some of the training images.

  Returns:
    Name of a variable -> float32 array: a kernel [2, 2, 3, 24], the
    eigenvectors of the covariance of the patches over the root of their
    variances, and their negatives; and biases [24] that centre the patches.
  """
  images = images.astype(np.float64)
  height, width = images.shape[1:3]
  patches = np.stack([
      images[:, y:height - 1 + y, x:width - 1 + x]
      for y in range(_PATCH) for x in range(_PATCH)], axis=3)
  patches = patches.reshape(-1, 3 * _PATCH ** 2)  # [patches, 12]
  mean = patches.mean(0)
  variances, vectors = np.linalg.eigh(np.cov(patches.T))
  kernel = vectors / np.sqrt(variances + _VARIANCE)
  kernel = np.concatenate([kernel, -kernel], axis=1)  # [12, 24]
  return {f'{_WHITENING}/weights': kernel.reshape(
      _PATCH, _PATCH, 3, -1).astype(np.float32),
          f'{_WHITENING}/biases': (-mean @ kernel).astype(np.float32)}
