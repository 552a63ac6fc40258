"""The student against numbers that the published code produced."""
import numpy as np
import pytest

from mentormix import runtime
from mentormix import students
from mentormix import testing
from mentormix.runtime import tf
from mentormix.students import resnet

NET = 'net_w16_32_64_c10/'


def _fill(golden):
  """Name -> value for every variable, as the published network had them."""
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


class _Net:
  """The thin ResNet-32 with the golden weights, in the default graph."""

  def __init__(self, values, is_training):
    tf.set_random_seed(1)
    self.x = tf.placeholder(tf.float32, [8, 32, 32, 3])
    student = students.get('resnet32_thin')
    self.logits = student(self.x, 10, is_training)
    self.labels = tf.placeholder(tf.float32, [8, 10])
    self.session = tf.Session()
    self.session.run(tf.global_variables_initializer())
    self.variables = {v.op.name: v for v in tf.global_variables()}
    self.initial = self.session.run(self.variables)
    initializers = {name: self.variables[name].initializer for name in values}
    self.session.run(initializers, {  # All at once, which is faster.
        op.inputs[1]: values[name] for name, op in initializers.items()})

  def run(self, fetches, seed=101, **feed):
    return self.session.run(fetches, {
        self.x: _images(seed),
        **{getattr(self, name): value for name, value in feed.items()}})


@pytest.fixture(scope='module')
def evaluated(values):
  with tf.Graph().as_default():
    return _Net(values, False)


@pytest.fixture(scope='module')
def trained(values):
  """With `loss` of `labels`, its `gradients` by name, and `decay`."""
  with tf.Graph().as_default():
    net = _Net(values, True)
    net.loss = tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=net.labels, logits=net.logits)
    kernels = tf.trainable_variables()
    net.gradients = dict(zip(
        [v.op.name for v in kernels],
        tf.gradients(tf.reduce_mean(net.loss), kernels)))
    net.decay = students.get('resnet8_thin').decay_loss()
    net.updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    return net


def _close(actual, expected, tolerance):
  np.testing.assert_allclose(
      actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_variables_are_named_and_ordered_as_published(golden, evaluated,
                                                      trained):
  assert list(evaluated.variables) == list(golden[NET + 'var_names'])
  shapes = [v.shape for v in evaluated.variables.values()]
  assert [str(s.as_list()) for s in shapes] == list(golden[NET + 'var_shapes'])
  count = sum(value.num_elements() for value in shapes)
  assert count == golden[NET + 'param_count_all']
  for name in golden[NET + 'debias_var_names']:
    assert name in trained.variables


def test_logits_with_moving_statistics(golden, evaluated):
  _close(evaluated.run(evaluated.logits), golden[NET + 'logits_eval'], 1e-4)


def test_logits_with_batch_statistics(golden, trained):
  _close(trained.run(trained.logits), golden[NET + 'logits_train'], 1e-4)


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_cross_entropy_and_gradients(golden, trained, kind):
  loss, gradients = trained.run([trained.loss, trained.gradients],
                                labels=golden[NET + 'labels_' + kind])
  _close(loss, golden[NET + 'xent_' + kind], 1e-4)
  norms = np.array([np.linalg.norm(gradients[name].astype(np.float64).ravel())
                    for name in golden[NET + 'grad_names']])
  _close(norms, golden[NET + 'grad_norms_' + kind], 1e-3)
  if kind == 'soft':
    whole = [name for name in gradients if NET + 'grad/' + name in golden]
    assert len(whole) == 5
    for name in whole:
      # 1e-4 on the wheel that made them. oneDNN rounds otherwise, and a leaky
      # ReLU whose input lies that close to 0 then takes the other slope.
      _close(gradients[name], golden[NET + 'grad/' + name], 2e-2)


def test_moving_statistics_after_two_updates(golden, trained):
  checked = 0
  for after, seed in (('after1', 101), ('after2', 103)):
    trained.run(trained.updates, seed)
    for key in golden:
      if key.startswith(NET + after):
        name = key[len(NET + after) + 1:]
        value = trained.session.run(trained.variables[name])
        _close(value, golden[key], 1e-5)
        checked += 1
  assert checked == 8


def test_weight_decay(golden, trained):
  np.testing.assert_allclose(trained.session.run(trained.decay),
                             golden[NET + 'decay_0.0002'], rtol=1e-5)


def test_bfloat16_computes_about_the_same_on_the_same_variables():
  """Each number keeps 8 bits; the variables and what leaves stay float32."""
  tf.reset_default_graph()
  tf.set_random_seed(1)
  x = tf.constant(_images(101))
  student = students.get('resnet8_thin')
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
      [tf.float32] * 7 + [tf.bfloat16] * 7)
  if runtime.IS_1_15:
    return  # It has no kernels for bfloat16; precision is mixed otherwise.
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    y, g = session.run([logits, gradients])
  _close(y[tf.bfloat16], y[tf.float32], 0.05)
  assert np.abs(y[tf.bfloat16] - y[tf.float32]).max() > 0
  for one, other in zip(g[tf.bfloat16], g[tf.float32]):
    cosine = (one * other).sum() / np.sqrt((one ** 2).sum()
                                           * (other ** 2).sum())
    assert cosine > 0.8


def test_a_pass_without_update_moves_no_statistics():
  tf.reset_default_graph()
  student = students.get('resnet8_thin')
  x = tf.random.normal([4, 32, 32, 3])
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    student(x, 10, True, update_statistics=False)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    student(x, 10, True)
  # Seven batch norms of depth 8, each with a mean and a variance.
  assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 14


@pytest.mark.parametrize('name,count', [
    ('resnet32', 29442378), ('resnet32_thin', 464154),
    ('resnet14_thin', 172506), ('resnet8_thin', 75290)])
def test_number_of_parameters(name, count):
  with tf.Graph().as_default():
    logits = students.get(name)(tf.zeros([2, 32, 32, 3]), 10, False)
    assert logits.shape.as_list() == [2, 10]
    assert count == sum(
        v.shape.num_elements() for v in tf.trainable_variables())


def test_initial_values(evaluated):
  conv = evaluated.initial['ResNet32/unit_3_4/sub2/conv2/DW']
  dense = evaluated.initial['ResNet32/logit/DW']
  assert abs(conv.std() / np.sqrt(2.0 / (9 * 64)) - 1) < 0.02
  assert np.abs(conv).max() > 3 * conv.std()  # Not truncated.
  assert np.abs(dense).max() <= np.sqrt(3.0 / 64)
  assert np.abs(dense).max() > 0.95 * np.sqrt(3.0 / 64)
