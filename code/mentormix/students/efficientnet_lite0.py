"""EfficientNet-Lite0 (tensorflow/tpu, 2020), slim style.

An EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze and
excitation, and with ReLU6. Pretrained weights of it are in a Python package:
see code/fetch_pretrained.py. There is no stochastic depth. B is the batch size,
K the number of classes.
"""
from mentormix.runtime import slim, tf
from mentormix.students import blocks

WEIGHT_DECAY = 1e-5  # Of all but batch norm.
DROPOUT_KEEP = 0.8
_INPUT_RANGE = (-127 / 128.0, 1.0)  # (pixel - 127) / 128.
SCOPE = 'EfficientnetLite0'
# Blocks in a stage, kernel, stride of the first block, by which factor a block
# expands its channels, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40),
          (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))
_BATCH_NORM_DECAY = 0.99
_BATCH_NORM_EPSILON = 0.001


def efficientnet_lite0(images, num_classes, is_training, update_statistics=True,
                       dtype=tf.float32, dropout_keep=DROPOUT_KEEP):
  """The network, by default for images of 224x224 pixels.

  Args:
    images: [B, H, W, 3] float32 in [-1, 1].
    num_classes: K; 1000 for the pretrained weights.
    is_training: whether batch norm uses the statistics of the batch, and
      dropout is on.
    update_statistics: whether a training pass adds to tf.GraphKeys.UPDATE_OPS
      the updates of the moving statistics.
    dtype: of the arithmetic, tf.float32 or tf.bfloat16. With bfloat16, the
      variables, the statistics and all that follows the last average pooling
      stay float32.
    dropout_keep: probability that a number is kept before the last layer.

  Returns:
    Logits [B, K] float32.
  """
  low, high = _INPUT_RANGE
  x = tf.cast(images * ((high - low) / 2) + (high + low) / 2, dtype)
  with tf.variable_scope(SCOPE,
                         custom_getter=blocks.float32_variables(dtype)), \
      slim.arg_scope(blocks.normalized(
          is_training, update_statistics, tf.nn.relu6, _BATCH_NORM_DECAY,
          _BATCH_NORM_EPSILON)):
    x = slim.conv2d(x, 32, 3, stride=2, scope='Stem')
    number = 0
    for repeats, kernel, stride, expansion, width in STAGES:
      for repeat in range(repeats):
        with tf.variable_scope(f'Block_{number}'):
          x = _block(x, kernel, stride if repeat == 0 else 1, expansion, width)
        number += 1
    x = slim.conv2d(x, 1280, 1, scope='Head')  # [B, 7, 7, 1280] for 224x224.
    return blocks.logits(x, num_classes, dropout_keep, is_training)


def _block(x, kernel, stride, expansion, width):
  """An inverted residual: expand, convolve each channel, project, add."""
  y = x
  if expansion > 1:
    y = slim.conv2d(y, x.shape[-1].value * expansion, 1, scope='Expand')
  y = slim.separable_conv2d(y, None, kernel, stride=stride, scope='Depthwise')
  y = slim.conv2d(y, width, 1, activation_fn=None, scope='Project')
  return x + y if stride == 1 and width == x.shape[-1].value else y
