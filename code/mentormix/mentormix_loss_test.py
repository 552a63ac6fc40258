"""Each step of the algorithm against the published numbers and by hand."""
import numpy as np
import pytest

from mentormix import mentormix_loss as loss_lib
from mentormix import sampling
from mentormix import testing
from mentormix.runtime import tf

B, K = 16, 10


@pytest.fixture(scope='module')
def golden():
  return testing.golden()


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(1)  # Of the student.


def _sampler():
  return sampling.Sampler(seed=1, step=0)


def _run(fetches):
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    return session.run(fetches)


@pytest.mark.parametrize('alpha', ['0.5', '2', '8'])
@pytest.mark.parametrize('weights', ['mixed', 'ones', 'low'])
def test_mixing_is_the_published_arithmetic(golden, alpha, weights):
  key = lambda name: golden[f'mix/beta{alpha}_{weights}/{name}']
  v = golden[f"mix/v_{weights}"][:, 0]
  lam = loss_lib.mixing_coefficients(
      tf.constant(key('raw_beta').ravel()), tf.constant(v))
  j = tf.constant(key('idx'))
  x = loss_lib.mix(tf.constant(golden['mix/x']), j, lam)
  l = loss_lib.mix(tf.constant(golden['mix/l']), j, lam)
  lam, x, l = _run([lam, x, l])
  np.testing.assert_allclose(lam, key('mix').ravel(), rtol=1e-6)
  np.testing.assert_allclose(x, key('xmix'), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(l, key('lmix'), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_cross_entropy_of_the_published_logits(golden, kind):
  net = 'net_w16_32_64_c10/'
  labels = tf.constant(golden[f"{net}labels_{kind}"])
  student = lambda images: tf.constant(golden[f"{net}logits_train"])
  loss = _run(loss_lib.cross_entropy(None, labels, student).per_example)
  np.testing.assert_allclose(loss, golden[f"{net}xent_{kind}"], rtol=1e-5)


def test_the_switch_is_at_one_half():
  beta = np.array([0.2, 0.8, 0.2, 0.8], np.float32)
  below = np.nextafter(np.float32(0.5), np.float32(0))
  v = np.array([0.5, 0.5, below, below], np.float32)
  lam = _run(loss_lib.mixing_coefficients(tf.constant(beta), tf.constant(v)))
  np.testing.assert_allclose(lam, [0.8, 0.8, 0.2, 0.2], rtol=1e-6)


def test_mix_by_hand():
  x = np.array([[1., 10.], [2., 20.], [4., 40.]], np.float32)
  mixed = _run(loss_lib.mix(tf.constant(x), tf.constant([2, 1, 0]),
                            tf.constant([0.75, 0.5, 1.0])))
  np.testing.assert_allclose(mixed, [[1.75, 17.5], [2, 20], [4, 40]])


class _Student:
  """A linear student that remembers how it was called."""

  def __init__(self):
    self.images, self.updates = [], []
    self.kernel = tf.get_variable('kernel', [12, K], dtype=tf.float32)

  def __call__(self, images, update_statistics=True):
    self.images.append(images)
    self.updates.append(update_statistics)
    return tf.matmul(tf.reshape(images, [-1, 12]), self.kernel)


def _batch(seed=0):
  rng = np.random.RandomState(seed)
  images = tf.constant(rng.randn(B, 2, 2, 3).astype(np.float32))
  labels = tf.constant(np.eye(K, dtype=np.float32)[rng.randint(K, size=B)])
  return images, labels


def _alike(student, one, other):
  """Both losses, their weights and their gradients are the same."""
  values = []
  for loss in (one, other):
    gradient, = tf.gradients(tf.reduce_mean(loss.per_example),
                             [student.kernel])
    values.append([loss.per_example, loss.v, gradient])
  for x, y in zip(*_run(values)):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def _weigh(loss):
  return tf.sigmoid(tf.reduce_mean(loss) - loss)


def test_methods_are_limits_of_each_other():
  images, labels = _batch()
  student = _Student()
  mixed = loss_lib.mentormix(images, labels, student, _weigh, 0, _sampler(),
                             _weigh)
  _alike(student, mixed, loss_lib.mentornet(images, labels, student, _weigh))
  plain = loss_lib.cross_entropy(images, labels, student)
  _alike(student, plain,
         loss_lib.mentornet(images, labels, student, tf.ones_like))
  _alike(student, plain,
         loss_lib.mixup(images, labels, student, 0, _sampler()))


@pytest.mark.parametrize('constant', [1.0, 0.7])
def test_constant_weights_make_mentormix_mixup(constant):
  j = np.random.RandomState(1).randint(B, size=B)
  beta = np.random.RandomState(2).uniform(size=B).astype(np.float32)
  weights = []

  def partners(v):
    weights.append(tf.nn.softmax(v))
    return tf.constant(j)
  sampler = _sampler()
  sampler.partners = partners
  sampler.beta = lambda alpha, shape: tf.constant(beta)
  images, labels = _batch()
  student = _Student()
  mixed = loss_lib.mentormix(
      images, labels, student, lambda loss: constant * tf.ones_like(loss), 2.0,
      sampler)
  plain = loss_lib.mixup(images, labels, student, 2.0, sampler)
  _alike(student, mixed._replace(v=plain.v), plain)
  for share in _run(weights):
    np.testing.assert_allclose(share, np.full(B, 1.0 / B), rtol=1e-6)


def test_the_last_pass_updates_statistics():
  images, labels = _batch()
  student = _Student()
  loss_lib.mentornet(images, labels, student, _weigh)
  loss_lib.mixup(images, labels, student, 2.0, _sampler())
  loss_lib.cross_entropy(images, labels, student)
  assert student.updates == [True] * 3
  loss_lib.mentormix(images, labels, student, tf.ones_like, 2.0, _sampler())
  assert student.updates[3:] == [False, True]


def test_weights_of_one_give_mixup():
  images, labels = _batch()
  student = _Student()
  loss_lib.mentormix(images, labels, student, tf.ones_like, 2.0,
                     _sampler())
  x, x_mix = _run([images, student.images[1]])
  # Each mixed image lies on a segment from its own towards some image of the
  # batch, nearer to its own.
  for i in range(B):
    residuals = []
    for j in range(B):
      direction = (x[j] - x[i]).ravel()
      step = (x_mix[i] - x[i]).ravel()
      norm = direction.dot(direction)
      share = step.dot(direction) / norm if norm else 0.0
      if 0 <= share <= 0.5:
        residuals.append(np.abs(step - share * direction).max())
    assert min(residuals) < 1e-5


def test_second_mentor_weighs_the_mixed_losses():
  images, labels = _batch()
  student = _Student()
  second = lambda loss: tf.cast(loss > tf.reduce_mean(loss), tf.float32)
  once = loss_lib.mentormix(images, labels, student, tf.ones_like, 0,
                            _sampler())
  twice = loss_lib.mentormix(images, labels, student, tf.ones_like, 0,
                             _sampler(), second)
  once, twice = _run([once.per_example, twice.per_example])
  np.testing.assert_allclose(twice, once * (once > once.mean()), rtol=1e-6)


def test_no_gradient_through_either_weight():
  images, labels = _batch()
  student = _Student()
  steep = lambda loss: tf.exp(loss)
  loss = loss_lib.mentormix(images, labels, student, steep, 0, _sampler(),
                            steep)
  gradient, = tf.gradients(tf.reduce_sum(loss.per_example), [student.kernel])
  logits = student(images)
  xent = tf.nn.softmax_cross_entropy_with_logits_v2(labels=labels,
                                                    logits=logits)
  expected, = tf.gradients(
      tf.reduce_sum(tf.stop_gradient(tf.exp(xent)) * xent), [student.kernel])
  assert tf.gradients(loss.v, [student.kernel]) == [None]
  alone = loss_lib.mentornet(images, labels, student, steep)
  assert tf.gradients(alone.v, [student.kernel]) == [None]
  gradient, expected = _run([gradient, expected])
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


def test_under_130_lines():
  with open(loss_lib.__file__) as f:
    assert len(f.readlines()) < 130
