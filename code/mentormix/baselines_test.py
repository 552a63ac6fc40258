"""Each baseline by hand, in its limits, and its gradient."""
import numpy as np
import pytest

from mentormix import baselines
from mentormix import mentormix_loss as loss_lib
from mentormix.mentormix_loss_test import _batch, _run, _Student
from mentormix.runtime import tf

LOGITS = np.array([[2., 1., 0.], [0., 3., -1.], [-1., 0.5, 0.], [0., 0., 9.]],
                  np.float32)
GIVEN = np.array([0, 2, 1, 0])  # The last one is surely wrong.
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
ONE_HOT = np.eye(3, dtype=np.float32)[GIVEN]
CROSS_ENTROPY = -np.log(P[np.arange(4), GIVEN])


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()
  tf.set_random_seed(1)  # Of the student.


def _by_hand(method, expected, *args, v=None):
  """Compares a method on the numbers above with NumPy; returns its `Loss`."""
  images = tf.zeros([4, 2, 2, 3])
  result = getattr(baselines, method)(
      images, tf.constant(ONE_HOT), lambda images: tf.constant(LOGITS), *args)
  loss, found_v, unmixed = _run([result.per_example, result.v, result.unmixed])
  np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(found_v, np.ones(4) if v is None else v)
  np.testing.assert_allclose(unmixed, CROSS_ENTROPY, rtol=1e-5)
  return result


def test_bootstrapping_by_hand():
  for beta in (0.3, baselines.BETA_SOFT):
    _by_hand('bootstrap_soft',
             -np.sum((beta * ONE_HOT + (1 - beta) * P) * np.log(P), axis=1),
             beta)
  predicted = np.eye(3)[LOGITS.argmax(axis=1)]
  _by_hand('bootstrap_hard', -np.sum(
      (0.8 * ONE_HOT + 0.2 * predicted) * np.log(P), axis=1))


def test_s_model_by_hand():
  noise = np.random.RandomState(0).randn(3, 3).astype(np.float32)
  q = np.exp(noise) / np.exp(noise).sum(axis=1, keepdims=True)
  _by_hand('s_model', -np.log((P @ q)[np.arange(4), GIVEN]), tf.constant(noise))


def test_the_noise_layer_starts_as_the_paper_says():
  np.testing.assert_allclose(
      np.exp(baselines.noise_logits(0.3, 4)),
      np.full([4, 4], 0.1) + 0.6 * np.eye(4), rtol=1e-5)
  assert np.isfinite(baselines.noise_logits(0.0, 4)).all()


@pytest.mark.parametrize('q', [0.1, 0.7, 1.0])
def test_gce_by_hand(q):
  _by_hand('gce', (1 - P[np.arange(4), GIVEN] ** q) / q, q)


def test_elr_by_hand():
  seen = []
  t = np.random.RandomState(0).dirichlet([1, 1, 1], 4).astype(np.float32)

  def remember(p):
    seen.append(p)
    return tf.constant(t)
  limited = np.clip(P, 1e-4, 1 - 1e-4)
  expected = CROSS_ENTROPY + 3 * np.log(1 - (limited * t).sum(axis=1))
  _by_hand('elr', expected, remember, 3.0)
  np.testing.assert_allclose(
      _run(seen[0]), limited / limited.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize('forgotten,kept', [
    (0.0, [1, 1, 1, 1]), (0.25, [1, 1, 1, 0]), (0.5, [1, 0, 1, 0]),
    (0.99, [1, 0, 0, 0])])
def test_co_teaching_keeps_the_small_losses(forgotten, kept):
  """The mean over the batch is the mean over what is kept."""
  loss = np.array(kept) * CROSS_ENTROPY
  result = _by_hand('co_teaching', loss * 4 / np.sum(kept), forgotten, v=kept)
  np.testing.assert_allclose(_run(tf.reduce_mean(result.per_example)),
                             loss.sum() / np.sum(kept), rtol=1e-5)


@pytest.mark.parametrize('method,args', [
    ('bootstrap_soft', (1.0,)), ('bootstrap_hard', (1.0,)),
    ('s_model', (baselines.noise_logits(0.0, 10),)), ('gce', (1e-5,)),
    ('elr', (lambda p: p, 0.0)), ('co_teaching', (0.0,))])
def test_the_limit_is_cross_entropy(method, args):
  images, labels = _batch()
  student = _Student()
  plain = loss_lib.cross_entropy(images, labels, student)
  values = []
  for loss in (plain, getattr(baselines, method)(images, labels, student,
                                                 *args)):
    values.append([loss.per_example, loss.v, tf.gradients(
        tf.reduce_mean(loss.per_example), [student.kernel])[0]])
  for x, y in zip(*_run(values)):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def _numeric(objective, logits, epsilon=1e-5):
  """The gradient of the sum of losses [B] by central differences."""
  gradient = np.zeros_like(logits)
  for at in np.ndindex(*logits.shape):
    step = np.zeros_like(logits)
    step[at] = epsilon
    gradient[at] = (objective(logits + step).sum()
                    - objective(logits - step).sum()) / (2 * epsilon)
  return gradient


def _softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


_NOISE = baselines.noise_logits(0.4, 3)
_T = np.full([4, 3], 1 / 3.0)
_OBJECTIVES = {
    # The p of the target moves, too.
    'bootstrap_soft': lambda p: -np.sum(
        (0.6 * ONE_HOT + 0.4 * p) * np.log(p), axis=1),
    # The predicted class does not.
    'bootstrap_hard': lambda p: -np.sum(
        (0.6 * ONE_HOT + 0.4 * np.eye(3)[P.argmax(axis=1)]) * np.log(p),
        axis=1),
    's_model': lambda p: -np.log((p @ np.exp(_NOISE))[range(4), GIVEN]),
    'gce': lambda p: (1 - p[range(4), GIVEN] ** 0.7) / 0.7,
    # The targets do not move, though they are made of p.
    'elr': lambda p: -np.log(p[range(4), GIVEN]) + 3 * np.log(
        1 - (np.clip(p, 1e-4, 1 - 1e-4) * _T).sum(axis=1)),
    # Nor does the weight of the two that are kept.
    'co_teaching': lambda p: 2 * np.array([1, 0, 1, 0]) * -np.log(
        p[range(4), GIVEN])}


@pytest.mark.parametrize('method,args', [
    ('bootstrap_soft', (0.6,)), ('bootstrap_hard', (0.6,)),
    ('s_model', (_NOISE,)), ('gce', (0.7,)),
    ('elr', (lambda p: 0 * p + 1 / 3.0, 3.0)), ('co_teaching', (0.5,))])
def test_gradients(method, args):
  logits = tf.constant(LOGITS)
  loss = getattr(baselines, method)(None, tf.constant(ONE_HOT),
                                    lambda images: logits, *args)
  gradient, = tf.gradients(loss.per_example, [logits])
  expected = _numeric(lambda x: _OBJECTIVES[method](_softmax(x)),
                      LOGITS.astype(np.float64))
  np.testing.assert_allclose(_run(gradient), expected, rtol=1e-3, atol=1e-5)
  assert tf.gradients(loss.v, [logits]) == [None]


def test_a_criterion_repeats_the_loss():
  """As microbatches use it: weight * criterion(labels, logits)."""
  for method, args in (('bootstrap_soft', ()), ('gce', (0.7,)),
                       ('elr', (lambda p: p, 3.0)), ('co_teaching', (0.5,))):
    loss = getattr(baselines, method)(
        None, tf.constant(ONE_HOT), lambda images: tf.constant(LOGITS), *args)
    again = loss.criterion(loss.labels, tf.constant(LOGITS))
    once, again = _run([loss.per_example,
                        again if loss.weight is None else loss.weight * again])
    np.testing.assert_array_equal(once, again)
