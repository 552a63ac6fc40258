"""Distributions; draws depend only on seed and step."""
import numpy as np
import pytest

from mentormix import sampling
from mentormix.runtime import tf


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()


def _run(fetches, feed=None):
  with tf.Session() as session:
    return session.run(fetches, feed)


def _steps(draw, count):
  """What `draw(sampler)` gives in each of some steps."""
  step = tf.placeholder(tf.int64, [])
  drawn = draw(sampling.Sampler(3, step))
  with tf.Session() as session:
    return np.array([session.run(drawn, {step: n}) for n in range(count)])


def test_partners_follow_the_softmax_of_the_weights():
  v = np.array([1.0, 0.0, 0.5, 0.0, 1.0], np.float32)
  draws = _steps(lambda sampler: sampler.partners(tf.constant(v)), 4000)
  expected = np.exp(v) / np.exp(v).sum()
  np.testing.assert_allclose(np.bincount(draws.ravel()) / draws.size, expected,
                             atol=0.012)
  # The partners are independent of each other.
  pairs = np.bincount(5 * draws[:, 0] + draws[:, 1], minlength=25) / 4000.0
  np.testing.assert_allclose(pairs, np.outer(expected, expected).ravel(),
                             atol=0.02)


def test_a_nan_weight_does_not_draw_an_index_out_of_range():
  j = _run(sampling.Sampler(1, 0).partners(tf.constant([np.nan] * 8)))
  assert j.min() >= 0 and j.max() < 8


@pytest.mark.parametrize('alpha', [0.3, 0.5, 1.0, 2.0, 8.0])
def test_beta_against_draws_by_numpy(alpha):
  """The Kolmogorov-Smirnov distance of 40,000 draws from 400,000."""
  draws = np.sort(_run(sampling.Sampler(1, 0).beta(alpha, [40000])))
  assert draws.min() >= 0 and draws.max() <= 1
  assert abs(draws.mean() - 0.5) < 0.01
  assert abs(draws.var() * 4 * (2 * alpha + 1) - 1) < 0.03
  others = np.sort(np.random.RandomState(0).beta(alpha, alpha, 400000))
  cumulative = np.searchsorted(others, draws) / 400000.0
  assert np.abs(cumulative - (np.arange(40000) + 0.5) / 40000).max() < 0.012


def test_beta_near_zero_is_never_nan():
  draws = _run(sampling.Sampler(1, 0).beta(1e-3, [20000]))
  assert np.isfinite(draws).all()
  assert np.mean((draws < 1e-6) | (draws > 1 - 1e-6)) > 0.95


def test_uniform_and_integers():
  sampler = sampling.Sampler(1, 7)
  u, n = _run([sampler.uniform([20000], -1.0, 3.0),
               sampler.integers([20000], -2, 2)])
  assert u.dtype == np.float32 and n.dtype == np.int32
  shares = np.histogram(u, 10, (-1, 3))[0] / 20000.0
  assert shares.sum() == 1 and np.abs(shares - 0.1).max() < 0.012
  shares = np.bincount(n + 2) / 20000.0
  assert len(shares) == 5 and np.abs(shares - 0.2).max() < 0.015


def _numbers(seed, step, first_stream=0):
  tf.reset_default_graph()
  sampler = sampling.Sampler(seed, step, first_stream)
  return np.stack(_run([sampler.uniform([100]), sampler.uniform([100])]))


def test_draws_depend_on_seed_and_step():
  once = _numbers(1, 5)
  np.testing.assert_array_equal(once, _numbers(1, 5))
  others = [_numbers(2, 5), _numbers(1, 6), _numbers(1, 5, 32)]
  everything = np.concatenate([once] + others).ravel()
  assert len(np.unique(everything)) > 790  # No stream is used twice.


def test_too_many_draws_in_a_step_are_an_error():
  sampler = sampling.Sampler(1, 5, first_stream=63)
  sampler.uniform([1])
  with pytest.raises(ValueError, match='more than 64 draws'):
    sampler.uniform([1])


def test_the_same_numbers_on_every_version():
  sampler = sampling.Sampler(1, 5)
  u, n, j, beta = _run([
      sampler.uniform([3]), sampler.integers([5], 0, 9),
      sampler.partners(tf.constant([0.0, 1.0, 0.5])), sampler.beta(2.0, [2])])
  np.testing.assert_array_equal(
      u, np.float32([0.45317435, 0.34878564, 0.45212042]))
  np.testing.assert_array_equal(n, [4, 1, 6, 2, 4])
  np.testing.assert_array_equal(j, [1, 2, 1])
  np.testing.assert_allclose(beta, [0.76396066, 0.48413548], rtol=1e-6)
