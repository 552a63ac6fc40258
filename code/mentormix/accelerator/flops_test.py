"""Operations counted by hand."""
from mentormix.accelerator import flops
from mentormix.runtime import tf


def test_operations_by_hand():
  with tf.Graph().as_default():
    x = tf.zeros([2, 8, 8, 3])
    kernel = tf.get_variable('kernel', [5, 5, 3, 7])
    matrix = tf.get_variable('matrix', [7, 11])
    y = tf.nn.conv2d(x, kernel, [1, 2, 2, 1], 'SAME')  # [2, 4, 4, 7]
    z = tf.matmul(tf.reduce_mean(y, [1, 2]), matrix)
    tf.matmul(z, z, transpose_b=True)  # Not asked for.
    convolution, product = 2 * (2 * 4 * 4 * 7) * (5 * 5 * 3), 2 * 2 * 7 * 11
    assert flops.count([y.op]) == convolution
    with tf.control_dependencies([z]):
      after = tf.no_op()
    assert flops.count([after, z.op]) == convolution + product
    gradients = tf.gradients(z, [x, kernel, matrix])
    assert flops.count([g.op for g in gradients]) == (
        3 * convolution + 2 * product)
