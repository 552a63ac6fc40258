"""The v* functions on hand-made numbers, and the points drawn from the grid."""
import numpy as np
import pytest

from mentormix import curriculum


def _v_star(name, loss, d, e):
  arrays = np.broadcast_arrays(*(np.asarray(x, np.float64)
                                 for x in (loss, d, e)))
  return curriculum.CURRICULA[name].v_star(*arrays)


D = [-1.5, -0.1, 0.0, 0.25, 1.0, 1.5]
EASY = [1, 1, 1, 0, 0, 0]
HARD = [0, 0, 1, 1, 1, 1]
RAMP = [1, 1, 1, 0.75, 0, 0]


@pytest.mark.parametrize('name,expected', [
    ('baseline', [1] * 6),
    ('self_paced', EASY),
    ('hard_example_mining', HARD),
    ('spcl_linear', RAMP),
])
def test_curricula_of_the_difference(name, expected):
  for e in (0, 18, 50, 99):
    np.testing.assert_allclose(_v_star(name, 2.0, D, e), expected)


def test_focal_depends_on_the_loss_alone():
  loss = [0.0, np.log(2), np.log(4), 50.0]
  for d in (-1, 1):
    np.testing.assert_allclose(_v_star('focal', loss, d, 7),
                               [0, 0.25, 0.5625, 1])


@pytest.mark.parametrize('e,expected', [
    (0, [1] * 6), (18, [1] * 6), (19, EASY), (89, EASY), (90, RAMP),
    (99, RAMP)])
def test_mentornet_pd_changes_after_18_and_at_90(e, expected):
  np.testing.assert_allclose(_v_star('mentornet_pd', 2.0, D, e), expected)


def test_spcl_linear_falls_more_slowly_with_a_larger_gamma():
  d = np.array([1.0, 2.0, 3.0])
  np.testing.assert_allclose(curriculum.spcl_linear(d, d, d, gamma=2.0),
                             [0.5, 0, 0])


@pytest.mark.parametrize('name', sorted(curriculum.CURRICULA))
def test_every_curriculum(name):
  chosen = curriculum.CURRICULA[name]
  loss, d, _, e = curriculum.grid()[::997].astype(np.float64).T
  v_star = chosen.v_star(loss, d, e)
  assert v_star.shape == loss.shape
  assert ((v_star >= 0) & (v_star <= 1)).all()
  assert chosen.binary == set(v_star).issubset({0.0, 1.0})
  assert chosen.about
  percents = [e for first, last in chosen.phases
              for e in range(first, last + 1)]
  assert percents == list(range(100))


def test_grid_is_the_published_one():
  rows = curriculum.grid()
  assert rows.shape == (121 * 101 * 100, 4) and rows.dtype == np.float32
  loss, d, label, e = (np.unique(column) for column in rows.T)
  np.testing.assert_allclose(
      loss, np.concatenate([np.linspace(0, 10, 101), np.arange(11, 31)]),
      rtol=1e-6)
  np.testing.assert_allclose(d, np.linspace(-5, 5, 101), rtol=1e-6)
  assert 0 in d  # Exactly: v* jumps there.
  np.testing.assert_array_equal(label, [0])
  np.testing.assert_array_equal(e, np.arange(100))


def test_training_set():
  chosen = curriculum.CURRICULA['mentornet_pd']
  (features, v_star), (held_out, held_out_v) = curriculum.training_set(chosen)
  assert features.shape == (80000, 4) and v_star.shape == (80000,)
  assert held_out.shape == (20000, 4) and held_out_v.shape == (20000,)
  assert {x.dtype for x in (features, v_star, held_out, held_out_v)} == {
      np.dtype(np.float32)}
  rows = np.concatenate([features, held_out])
  assert len(np.unique(rows, axis=0)) == len(rows)  # No row in both halves.
  for column, (low, high) in zip(rows.T, ((0, 30), (-5, 5), (0, 0), (0, 99))):
    assert column.min() == low and column.max() == high
  loss, d, _, e = held_out.astype(np.float64).T
  np.testing.assert_allclose(held_out_v, chosen.v_star(loss, d, e), atol=1e-6)


def test_training_set_follows_its_seed():
  chosen = curriculum.CURRICULA['self_paced']
  draw = lambda seed: curriculum.training_set(chosen, 50, 0.3, seed)
  (first, _), (held_out, _) = draw(3)
  assert len(first) == 35 and len(held_out) == 15
  np.testing.assert_array_equal(first, draw(3)[0][0])
  assert (first != draw(4)[0][0]).any()
