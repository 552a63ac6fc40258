"""The student fast: its first layer, its initial values, its sizes."""
import numpy as np
import pytest

from mentormix import students
from mentormix.runtime import tf
from mentormix.students import fast


def _images(count=500):
  """Smooth images whose colours belong together, as in photographs."""
  random = np.random.RandomState(0)
  coarse = random.uniform(-1, 1, [count, 8, 8, 1]).repeat(4, 1).repeat(4, 2)
  return np.float32(np.clip(
      coarse * [0.9, 0.8, 0.7] + random.normal(size=[count, 32, 32, 3]) * 0.1
      + 0.1, -1, 1))


def test_the_first_layer_whitens():
  """Its outputs have mean 0, no correlation, and variance 1 but for epsilon."""
  images = _images()
  values = fast.whitening(images)
  kernel = values['Fast/Whitening/weights']
  biases = values['Fast/Whitening/biases']
  assert kernel.shape == (2, 2, 3, 24) and biases.shape == (24,)
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = session.run(
        tf.nn.conv2d(images, kernel, [1, 1, 1, 1], 'VALID') + biases)
  outputs = outputs.reshape(-1, 24)
  assert np.abs(outputs.mean(0)).max() < 1e-2
  np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-5)
  covariance = np.cov(outputs[:, :12].T)
  variances = covariance.diagonal()
  # The directions of least variance are not blown up.
  assert variances.max() < 1.01 and variances.max() > 0.99
  np.testing.assert_allclose(covariance - np.diag(variances), 0, atol=1e-2)


@pytest.mark.parametrize('name,widths,parameters', [
    ('fast', (64, 256, 256), 1971352), ('fast_thin', (32, 128, 256), 1088600)])
def test_the_numbers_of_the_network(name, widths, parameters):
  student = students.get(name)
  with tf.Graph().as_default(), tf.variable_scope('', reuse=tf.AUTO_REUSE):
    x = tf.zeros([2, 32, 32, 3])
    student(x, 10, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert student(x, 10, True).shape.as_list() == [2, 10]
    trained = {v.op.name: v.shape.as_list() for v in tf.trainable_variables()}
    every = {v.op.name for v in tf.global_variables()}
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * 6
    low = student(x, 10, True, dtype=tf.bfloat16)
    assert low.dtype == tf.float32
    assert {v.op.name for v in tf.global_variables()} == every
  assert 'Fast/Whitening/weights' in every - set(trained)
  assert set(student.prepared(_images(20))) == {
      'Fast/Whitening/weights', 'Fast/Whitening/biases'}
  a, b, c = widths
  assert sum(map(np.prod, trained.values())) == parameters == (
      24 + 9 * (24 * a + a * a + a * b + b * b + b * c + c * c)
      + 2 * (a + b + c) + c * 10)


def test_channels_pass_through_at_first():
  """Of a convolution, the first filters are the identity."""
  with tf.Graph().as_default(), tf.Session() as session:
    x = tf.random.uniform([2, 32, 32, 3], -1, 1, seed=1)
    students.get('fast')(x, 10, True)
    session.run(tf.global_variables_initializer())
    kernels = {v.op.name: session.run(v) for v in tf.trainable_variables()
               if 'Conv' in v.op.name}
  assert len(kernels) == 6
  for name, kernel in kernels.items():
    inputs, filters = kernel.shape[2:]
    passing = np.zeros([3, 3, inputs, min(inputs, filters)])
    passing[1, 1] = np.eye(inputs)[:, :filters]
    np.testing.assert_array_equal(kernel[..., :inputs], passing, name)
    rest = kernel[..., inputs:]
    if rest.size:
      bound = 1 / np.sqrt(9 * inputs)
      assert 0.95 * bound < np.abs(rest).max() <= bound


@pytest.mark.parametrize('size', [16, 32, 40])
def test_it_takes_other_sizes(size):
  students.check_size('fast', size)
  with tf.Graph().as_default():
    logits = students.get('fast')(tf.zeros([1, size, size, 3]), 5, True)
    assert logits.shape.as_list() == [1, 5]
