"""tf-slim's networks as students, against tf-slim's networks."""
import numpy as np
import pytest

from mentormix import students
from mentormix.runtime import IS_1_15, slim, slim_nets, tf

# Student -> variables and numbers with the 1000 or 1001 published classes, and
# tf-slim's function and arg_scope.
NETS = {
    'resnet_v1_50': (1000, 267, 25610152, slim_nets.resnet_v1.resnet_v1_50,
                     slim_nets.resnet_v1.resnet_arg_scope),
    'resnet_v2_50': (1001, 272, 25615849, slim_nets.resnet_v2.resnet_v2_50,
                     slim_nets.resnet_v2.resnet_arg_scope),
    'inception_v3': (1001, 388, 27182194, slim_nets.inception_v3.inception_v3,
                     slim_nets.inception_v3.inception_v3_arg_scope),
}


def _shapes():
  return [(v.op.name, v.shape.as_list()) for v in tf.global_variables()]


@pytest.mark.parametrize('name', sorted(NETS))
def test_variables_are_those_of_slim(name):
  num_classes, variables, count, network, arg_scope = NETS[name]
  size = students.get(name).image_size
  x = np.zeros([2, size, size, 3], np.float32)
  with tf.Graph().as_default():
    logits = students.get(name)(tf.constant(x), num_classes, True)
    assert logits.shape.as_list() == [2, num_classes]
    ours = _shapes()
    assert not tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    norms = len([1 for n, _ in ours if n.endswith('/moving_mean')])
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * norms
    auxiliary = tf.get_collection(students.AUXILIARY_LOGITS)
    assert [y.shape.as_list() for y in auxiliary] == (
        [[2, num_classes]] if name == 'inception_v3' else [])
    assert {n for n, _ in ours} == {v.op.name for v in tf.model_variables()}
  assert (len(ours), sum(int(np.prod(s)) for _, s in ours)) == (variables,
                                                                count)
  if IS_1_15:  # On 2.x, tf-slim's own arg_scope asks for what is missing.
    with tf.Graph().as_default(), slim.arg_scope(arg_scope()):
      network(tf.constant(x), num_classes)
      assert sorted(ours) == sorted(_shapes())


@pytest.mark.parametrize('name', sorted(NETS))
def test_a_pass_without_update_leaves_no_trace(name):
  student = students.get(name)
  with tf.Graph().as_default() as graph:
    x = tf.zeros([2, student.smallest_size, student.smallest_size, 3])
    student(x, 5, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert not tf.get_collection(students.AUXILIARY_LOGITS)
    norms = [op for op in graph.get_operations()
             if op.type.startswith('FusedBatchNorm')]
    assert norms and all(op.get_attr('is_training') for op in norms)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      student(x, 5, True)
    assert tf.get_collection(tf.GraphKeys.UPDATE_OPS)


def test_logits_are_those_of_slim():
  """ResNet-v1 sees pixels from 0 to 255 minus their means."""
  pixels = np.random.RandomState(1).uniform(0, 255, [2, 32, 32, 3])
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      ours = students.get('resnet_v1_50')(
          tf.constant((pixels / 127.5 - 1).astype(np.float32)), 6, False)
      centred = pixels - [123.68, 116.78, 103.94]
      with slim.arg_scope(slim_nets.resnet_v1.resnet_arg_scope()):
        theirs, _ = _slim_v1(centred.astype(np.float32))
    session.run(tf.global_variables_initializer())
    ours, theirs = session.run([ours, theirs[:, 0, 0, :]])
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def _slim_v1(images):
  """tf-slim's ResNet-v1; outside of training, the collection has no effect."""
  scope = slim_nets.resnet_v1.resnet_arg_scope()
  params = dict(scope[slim.arg_scope_func_key(slim.conv2d)][
      'normalizer_params'], updates_collections=[])
  with slim.arg_scope([slim.conv2d], normalizer_params=params):
    return slim_nets.resnet_v1.resnet_v1_50(images, 6, is_training=False)


def test_bfloat16_keeps_variables_and_results_in_float32():
  with tf.Graph().as_default() as graph:
    for name in NETS:
      x = tf.zeros([2, 107, 107, 3])
      logits = students.get(name)(x, 5, True, dtype=tf.bfloat16)
      assert logits.dtype == tf.float32
    assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
    assert {op.outputs[0].dtype for op in graph.get_operations()
            if op.type == 'Conv2D'} == {tf.bfloat16}
