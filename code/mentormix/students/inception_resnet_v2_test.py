"""Inception-ResNet-v2 against the published variables and against Keras."""
import re
import subprocess
import sys

import numpy as np
import pytest

from mentormix import runtime
from mentormix import students
from mentormix import testing
from mentormix.runtime import tf

STUDENT = students.get('inception_resnet_v2')

# Reads weights under their names here, writes the features before the last
# layer. In a process of its own: Keras counts layers, and is eager on 2.x.
_KERAS = """
import re, sys
import numpy as np
import tensorflow as tf
weights, images, features, classes = sys.argv[1:]
weights, images = dict(np.load(weights)), np.load(images)
model = tf.keras.applications.InceptionResNetV2(
    weights=None, classes=int(classes), input_shape=images.shape[1:])
def order(layer):
  number = re.search('_([0-9]+)$', layer.name)
  return int(number.group(1)) if number else 0
def named(pattern):
  return sorted((layer for layer in model.layers
                 if re.match(pattern, layer.name)), key=order)
slim = [name[:-8] for name in weights if name.endswith('/weights')]
plain = [n for n in slim if n + '/BatchNorm/beta' in weights]
assert plain.pop().endswith('Conv2d_7b_1x1')
pairs = list(zip(plain, named('conv2d(_[0-9]+)?$'),
                 named('batch_normalization(_[0-9]+)?$')))
assert len(pairs) == len(plain) == 203
pairs.append(('InceptionResnetV2/Conv2d_7b_1x1', model.get_layer('conv_7b'),
              model.get_layer('conv_7b_bn')))
values = []
def put(layer, *names):
  assert len(layer.weights) == len(names)
  values.extend(zip(layer.weights, (weights[name] for name in names)))
for name, conv, norm in pairs:
  put(conv, name + '/weights')
  put(norm, *(f'{name}/BatchNorm/{leaf}' for leaf in (
      'beta', 'moving_mean', 'moving_variance')))
ups = [n for n in slim if n + '/biases' in weights and 'Logits' not in n]
assert len(ups) == 40
for name in ups:
  block = name.split('/')[-2].replace('Block8', 'block8_10')
  put(model.get_layer(block + '_conv'), name + '/weights', name + '/biases')
if tf.__version__.startswith('1.'):
  tf.keras.backend.batch_set_value(values)
else:
  for variable, value in values:
    variable.assign(value)
last = tf.keras.Model(model.input, model.get_layer('avg_pool').output)
np.save(features, last.predict(images))
"""


def _build(num_classes, is_training, size=299, **keywords):
  """Variables in the graph after building, in order."""
  with tf.Graph().as_default():
    logits = STUDENT(tf.zeros([2, size, size, 3]), num_classes, is_training,
                     **keywords)
    assert logits.shape.as_list() == [2, num_classes]
    return tf.global_variables()


def test_variables_are_those_of_the_published_checkpoint():
  published = testing.published_inception_resnet_v2()
  with tf.Graph().as_default():
    STUDENT(tf.zeros([2, 299, 299, 3]), 1001, True)
    found = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * 206
    (auxiliary,) = tf.get_collection(students.AUXILIARY_LOGITS)
    assert auxiliary.shape.as_list() == [2, 1001]
    assert len(tf.model_variables()) == 908
    # Kernels and biases decay, beta does not.
    assert len(tf.trainable_variables()) == 248 + 42 + 206
    assert not tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    STUDENT.decay_loss()
    decayed = [op for op in tf.get_default_graph().get_operations()
               if op.type == 'L2Loss']
    assert len(decayed) == 248 + 42
  assert len(published) == 908
  assert list(found) == list(published) and found == published
  _assert_biases_where_there_is_no_batch_norm(set(found))


def _assert_biases_where_there_is_no_batch_norm(names):
  """Those are the last layers and what leads up to the sum of a block."""
  assert not any(name.endswith('/gamma') for name in names)
  layers = {name[:-len('/weights')] for name in names
            if name.endswith('/weights')}
  biased = {name for name in layers if name + '/biases' in names}
  assert biased == {name for name in layers
                    if name + '/BatchNorm/beta' not in names}
  ups = {name for name in biased if not name.endswith('/Logits')}
  assert len(ups) == 10 + 20 + 10 and len(biased) == 42
  assert all(re.search('[bB]lock[0-9_]+/Conv2d_1x1$', name) for name in ups)


def _slow(*row):
  return pytest.param(*row, marks=pytest.mark.slow)


@pytest.mark.parametrize('num_classes,is_training,count', [
    (100, False, 54490436), _slow(50, False, 54413586),
    _slow(196, False, 54637988), _slow(1000, False, 55873736),
    _slow(1001, False, 55875273), _slow(1001, True, 59244594),
    _slow(100, True, 54490436 + 2599552 + 769 * 100)])
def test_number_of_parameters(num_classes, is_training, count):
  assert count == sum(v.shape.num_elements()
                      for v in _build(num_classes, is_training))


def test_a_pass_without_update_leaves_no_trace():
  """It uses the batch and has dropout, and no auxiliary classifier."""
  size = STUDENT.smallest_size
  with tf.Graph().as_default() as graph:
    STUDENT(tf.zeros([2, size, size, 3]), 5, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert not tf.get_collection(students.AUXILIARY_LOGITS)
    assert not any('AuxLogits' in v.op.name for v in tf.global_variables())
    norms = [op for op in graph.get_operations()
             if op.type.startswith('FusedBatchNorm')]
    assert len(norms) == 204
    assert all(op.get_attr('is_training') for op in norms)
    assert any('Stateless' in op.type for op in graph.get_operations())
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      STUDENT(tf.zeros([2, size, size, 3]), 5, True)
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * 206
    assert len(tf.get_collection(students.AUXILIARY_LOGITS)) == 1


def test_bfloat16_keeps_variables_and_results_in_float32():
  with tf.Graph().as_default() as graph:
    logits = STUDENT(tf.zeros([2, 107, 107, 3]), 5, True, dtype=tf.bfloat16)
    (auxiliary,) = tf.get_collection(students.AUXILIARY_LOGITS)
    assert {logits.dtype, auxiliary.dtype} == {tf.float32}
    assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
    assert {op.outputs[0].dtype for op in graph.get_operations()
            if op.type == 'Conv2D'} == {tf.bfloat16}


def _random(variables, rng):
  """Name -> value; the kernels keep the scale of what they are applied to."""
  values = {}
  for variable in variables:
    name, shape = variable.op.name, variable.shape.as_list()
    value = rng.randn(*shape)
    if name.endswith('/weights'):
      value *= np.sqrt(1.0 / np.prod(shape[:-1]))
    elif name.endswith('moving_variance'):
      value = 1 + 0.1 * np.abs(value)
    else:
      value *= 0.1
    values[name] = value.astype(np.float32)
  return values


@pytest.mark.slow
def test_logits_are_those_of_keras(tmp_path):
  rng = np.random.RandomState(5)
  images = rng.uniform(-1, 1, [2, 107, 107, 3]).astype(np.float32)
  with tf.Graph().as_default(), \
      tf.Session(config=runtime.session_config()) as session:
    x = tf.placeholder(tf.float32, images.shape)
    logits = STUDENT(x, 7, False)
    values = _random(tf.global_variables(), rng)
    initializers = {v.op.name: v.initializer for v in tf.global_variables()}
    session.run(initializers, {  # All at once, which is faster.
        op.inputs[1]: values[name] for name, op in initializers.items()})
    ours = session.run(logits, {x: images})
  paths = [str(tmp_path / name) for name in ('weights.npz', 'images.npy',
                                             'features.npy')]
  np.savez(paths[0], **values)
  np.save(paths[1], images)
  subprocess.run([sys.executable, '-c', _KERAS] + paths + ['7'], check=True,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  head = 'InceptionResnetV2/Logits/Logits/'
  theirs = (np.load(paths[2]).dot(values[head + 'weights'])
            + values[head + 'biases'])
  np.testing.assert_allclose(ours, theirs, rtol=0,
                             atol=1e-5 * np.abs(theirs).max())
  assert np.abs(ours[0] - ours[1]).max() > 0.01 * np.abs(ours).max()
