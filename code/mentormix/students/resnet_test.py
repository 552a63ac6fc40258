"""The student against numbers that the published code produced."""
import numpy as np
import pytest

from mentormix import runtime
from mentormix.runtime import tf
from mentormix import students
from mentormix.students import resnet
from mentormix import testing

NET = 'net_w16_32_64_c10/'


def _fill(golden):
  """Name -> value for every variable, as golden/README says."""
  rng = np.random.RandomState(int(golden[NET + 'seed']))
  values = {}
  for name, shape in zip(golden[NET + 'var_names'], golden[NET + 'var_shapes']):
    shape = tuple(int(n) for n in shape.strip('[]').split(','))
    leaf = name.split('/')[-1]
    if leaf == 'DW' and len(shape) == 4:
      scale = np.sqrt(2.0 / (shape[0] * shape[1] * shape[3]))
      value = rng.randn(*shape) * scale
    elif leaf == 'DW':
      value = rng.randn(*shape) * np.sqrt(1.0 / shape[0])
    elif leaf == 'gamma':
      value = 1 + 0.1 * rng.randn(*shape)
    elif leaf == 'moving_variance':
      value = 1 + 0.1 * np.abs(rng.randn(*shape))
    else:
      value = 0.1 * rng.randn(*shape)
    values[name] = value.astype(np.float32)
  return values


def _images(seed):
  x = np.random.RandomState(seed).uniform(-1, 1, (8, 32, 32, 3))
  return x.astype(np.float32)


@pytest.fixture(scope='module')
def golden():
  return testing.golden()


@pytest.fixture(scope='module')
def values(golden):
  values = _fill(golden)
  for name, first3, total in zip(golden[NET + 'var_names'],
                                 golden[NET + 'var_first3'],
                                 golden[NET + 'var_sums']):
    np.testing.assert_allclose(values[name].ravel()[:3], first3, rtol=1e-6)
    np.testing.assert_allclose(values[name].astype(np.float64).sum(), total,
                               rtol=1e-5, atol=1e-5)
  return values


class _Graph(object):
  """The thin ResNet-32 with the golden weights."""

  def __init__(self, values, is_training):
    tf.reset_default_graph()
    self.x = tf.placeholder(tf.float32, [8, 32, 32, 3])
    student = students.get('resnet32_thin')
    self.logits = student(self.x, 10, is_training)
    self.session = tf.Session()
    self.session.run(tf.global_variables_initializer())
    self.variables = {v.op.name: v for v in tf.global_variables()}
    for name, value in values.items():
      self.variables[name].load(value, self.session)

  def run(self, fetches, seed=101):
    return self.session.run(fetches, {self.x: _images(seed)})


def _close(actual, expected, tolerance):
  np.testing.assert_allclose(
      actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_variables_are_named_and_ordered_as_published(golden, values):
  tf.reset_default_graph()
  students.get('resnet32_thin')(tf.zeros([8, 32, 32, 3]), 10, False)
  names = [v.op.name for v in tf.global_variables()]
  assert names == list(golden[NET + 'var_names'])
  shapes = [str(v.shape.as_list()) for v in tf.global_variables()]
  assert shapes == list(golden[NET + 'var_shapes'])
  count = sum(v.shape.num_elements() for v in tf.trainable_variables())
  assert count == golden[NET + 'param_count_trainable'] == 464154
  everything = sum(v.shape.num_elements() for v in tf.global_variables())
  assert everything == golden[NET + 'param_count_all']


def test_zero_debias_variables_are_named_as_published(golden, values):
  names = _Graph(values, True).variables
  for name in golden[NET + 'debias_var_names']:
    assert name in names


def test_logits_with_moving_statistics(golden, values):
  graph = _Graph(values, False)
  _close(graph.run(graph.logits), golden[NET + 'logits_eval'], 1e-4)


def test_logits_with_batch_statistics(golden, values):
  graph = _Graph(values, True)
  _close(graph.run(graph.logits), golden[NET + 'logits_train'], 1e-4)


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_cross_entropy_and_gradients(golden, values, kind):
  graph = _Graph(values, True)
  labels = golden[NET + 'labels_' + kind]
  loss = tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.constant(labels), logits=graph.logits)
  by_name = {v.op.name: v for v in tf.trainable_variables()}
  names = list(golden[NET + 'grad_names'])
  gradients = tf.gradients(tf.reduce_mean(loss), [by_name[n] for n in names])
  loss_value, gradient_values = graph.run([loss, gradients])
  _close(loss_value, golden[NET + 'xent_' + kind], 1e-4)
  norms = np.array([np.linalg.norm(g.astype(np.float64).ravel())
                    for g in gradient_values])
  _close(norms, golden[NET + 'grad_norms_' + kind], 1e-3)
  if kind == 'soft':
    whole = [n for n in names if NET + 'grad/' + n in golden]
    assert len(whole) == 5
    for name in whole:
      # 1e-4 on the wheel that made them. oneDNN rounds otherwise, and a leaky
      # ReLU whose input lies that close to 0 then takes the other slope.
      _close(gradient_values[names.index(name)],
             golden[NET + 'grad/' + name], 2e-2)


def test_moving_statistics_after_two_updates(golden, values):
  graph = _Graph(values, True)
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  checked = 0
  for after, seed in (('after1', 101), ('after2', 103)):
    graph.run(updates, seed)
    for key in golden:
      if key.startswith(NET + after):
        name = key[len(NET + after) + 1:]
        value = graph.session.run(graph.variables[name])
        _close(value, golden[key], 1e-5)
        checked += 1
  assert checked == 8


def test_weight_decay(golden, values):
  graph = _Graph(values, True)
  np.testing.assert_allclose(graph.run(resnet.weight_decay()),
                             golden[NET + 'decay_0.0002'], rtol=1e-5)


def test_bfloat16_computes_about_the_same_on_the_same_variables(values):
  """Each number keeps 8 bits; the variables and what leaves stay float32."""
  tf.reset_default_graph()
  x = tf.placeholder(tf.float32, [8, 32, 32, 3])
  student = students.get('resnet32_thin')
  logits = {}
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    for dtype in (tf.float32, tf.bfloat16):
      logits[dtype] = student(x, 10, True, dtype=dtype)
      updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  kernels = [v for v in tf.trainable_variables() if v.op.name.endswith('/DW')]
  gradients = {dtype: tf.gradients(tf.reduce_mean(y[:, 0] - y[:, 1]), kernels)
               for dtype, y in logits.items()}
  assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
  assert {y.dtype for y in logits.values()} == {tf.float32}
  assert {x.dtype.base_dtype for x in updates} == {tf.float32}
  convolutions = [op for op in tf.get_default_graph().get_operations()
                  if op.type == 'Conv2D']
  assert [op.outputs[0].dtype for op in convolutions] == (
      [tf.float32] * 31 + [tf.bfloat16] * 31)
  if runtime.IS_1_15:
    return  # It has no kernels for bfloat16; precision is mixed otherwise.
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for v in tf.global_variables():
      if v.op.name in values:
        v.load(values[v.op.name], session)
    y, g = session.run([logits, gradients], {x: _images(101)})
  _close(y[tf.bfloat16], y[tf.float32], 0.05)
  assert np.abs(y[tf.bfloat16] - y[tf.float32]).max() > 0
  for one, other in zip(g[tf.bfloat16], g[tf.float32]):
    cosine = (one * other).sum() / np.sqrt((one ** 2).sum()
                                           * (other ** 2).sum())
    assert cosine > 0.8


def test_a_pass_without_update_moves_no_statistics(values):
  tf.reset_default_graph()
  student = students.get('resnet8_thin')
  x = tf.random.normal([4, 32, 32, 3])
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    student(x, 10, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    student(x, 10, True)
  # Seven batch norms of depth 8, each with a mean and a variance.
  assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 14


@pytest.mark.parametrize('name,num_classes,count', [
    ('resnet32', 10, 29442378),
    ('resnet32_thin', 10, 464154),
    ('resnet14_thin', 10, None),
    ('resnet8_thin', 10, None),
])
def test_number_of_parameters(name, num_classes, count):
  tf.reset_default_graph()
  logits = students.get(name)(tf.zeros([2, 32, 32, 3]), num_classes, False)
  assert logits.shape.as_list() == [2, num_classes]
  total = sum(v.shape.num_elements() for v in tf.trainable_variables())
  if count is None:  # A 6n + 2 net: two kernels and two batch norms a unit.
    depth = int(name[len('resnet'):].split('_')[0])
    units = (depth - 2) // 6
    kernel = lambda i, o: 9 * i * o
    norm = lambda c: 2 * c
    count = kernel(3, 16) + 64 * 10 + 10 + norm(64)
    before = 16
    for width in (16, 32, 64):
      for _ in range(units):
        count += kernel(before, width) + kernel(width, width)
        count += norm(before) + norm(width)
        before = width
  assert total == count


def test_initial_values():
  tf.reset_default_graph()
  tf.set_random_seed(1)
  students.get('resnet32_thin')(tf.zeros([2, 32, 32, 3]), 10, False)
  variables = {v.op.name: v for v in tf.trainable_variables()}
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    conv, dense = session.run([
        variables['ResNet32/unit_3_4/sub2/conv2/DW'],
        variables['ResNet32/logit/DW']])
  assert abs(conv.std() / np.sqrt(2.0 / (9 * 64)) - 1) < 0.02
  assert np.abs(conv).max() > 3 * conv.std()  # Not truncated.
  assert np.abs(dense).max() <= np.sqrt(3.0 / 64)
  assert np.abs(dense).max() > 0.95 * np.sqrt(3.0 / 64)
