"""The v* functions on hand-made numbers, those of a file, and the grid."""
import numpy as np
import pytest

from mentormix.mentornet import curriculum
from mentormix.messages import UserError


def _v_star(name, loss, d, e):
  arrays = np.broadcast_arrays(*(np.asarray(x, np.float64)
                                 for x in (loss, d, 0, e)))
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


@pytest.mark.parametrize('name', sorted(curriculum.CURRICULA))
def test_every_curriculum(name):
  chosen = curriculum.CURRICULA[name]
  assert chosen.name == name and chosen.about
  points = curriculum.grid()[::997].astype(np.float64).T
  v_star = chosen.v_star(*points)
  assert v_star.shape == points[0].shape
  assert ((v_star >= 0) & (v_star <= 1)).all()
  assert curriculum.is_binary(v_star) == (
      name in ('baseline', 'self_paced', 'hard_example_mining'))
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
  points = held_out.astype(np.float64).T
  np.testing.assert_allclose(held_out_v, chosen.v_star(*points), atol=1e-6)


def test_training_set_follows_its_seed():
  chosen = curriculum.CURRICULA['self_paced']
  draw = lambda seed: curriculum.training_set(chosen, 50, 0.3, seed)
  (first, _), (held_out, _) = draw(3)
  assert len(first) == 35 and len(held_out) == 15
  np.testing.assert_array_equal(first, draw(3)[0][0])
  assert (first != draw(4)[0][0]).any()


def test_stages():
  assert curriculum.stages(curriculum.ALWAYS) == [0, 25, 50, 75, 99]
  assert curriculum.stages([(0, 18), (19, 89), (90, 99)]) == [
      0, 18, 19, 89, 90, 99]


def _custom(tmp_path, body, head=''):
  path = tmp_path / 'mine.py'
  body = body.replace('\n', '\n  ')
  path.write_text(
      f'{head}\ndef v_star(loss, difference, label, epoch):\n  {body}\n')
  return str(path)


def test_a_formula_of_ones_custom(tmp_path):
  path = _custom(tmp_path, '"""1 early,\nthen np.exp(-d)."""\nreturn np.where('
              'epoch < 10, 1, np.minimum(1, np.exp(-difference)))',
              head='import numpy as np')
  chosen = curriculum.get(path)
  assert chosen.name == 'mine' and chosen.phases == ((0, 99),)
  assert chosen.about == '1 early, then np.exp(-d).'
  d = np.array([-1.0, 1.0])
  for e, expected in ((9, [1, 1]), (10, [1, np.exp(-1)])):
    np.testing.assert_allclose(
        chosen.v_star(d + 2, d, 0 * d, np.full(2, float(e))), expected)
  (features, v_star), _ = curriculum.training_set(chosen, 100)
  np.testing.assert_allclose(v_star, chosen.v_star(*features.T), rtol=1e-6)


def test_a_formula_with_a_dataclass(tmp_path):
  """A dataclass looks its module up to read its annotations."""
  path = _custom(tmp_path, 'return loss * SETTINGS.factor', head="""\
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Settings:
  factor: float = 0

SETTINGS = Settings()
""")
  x = np.ones(3)
  np.testing.assert_array_equal(curriculum.get(path).v_star(x, x, x, x), 0)


def test_rounding_errors_are_clipped(tmp_path):
  chosen = curriculum.get(_custom(tmp_path, 'return loss * 0 + 1 + 1e-15'))
  x = np.ones(3)
  np.testing.assert_array_equal(chosen.v_star(x, x, x, x), 1)


def test_a_formula_may_change_its_arguments(tmp_path):
  chosen = curriculum.get(_custom(tmp_path, 'loss *= 0\nreturn loss'))
  loss = np.ones(3)
  chosen.v_star(loss, loss, loss, loss)
  np.testing.assert_array_equal(loss, 1)


@pytest.mark.parametrize('body,message', [
    ('raise ValueError("sorry")', 'line 3: ValueError: sorry'),
    ('return 1 / 0', 'line 3: ZeroDivisionError'),
    ('if loss > 1: return loss', 'line 3: ValueError: The truth value'),
    ('import sys; sys.exit(3)', 'line 3: SystemExit: 3'),
    ('return loss * float("nan")',
     'returns nan at loss 0, difference -5, label 0, epoch 0'),
    ('return loss / 4', 'returns 1.125 at loss 4.5, '),
    ('return -loss', 'returns -0.5 at loss 0.5'),
    ('return 0.5', 'returns the shape [] for arrays of the shape ['),
    ('return loss[:-1]', 'returns the shape ['),
    ('pass', 'mine.py'),
    ('return loss.astype(str)', 'returns <U'),
    ('return loss + 0j', 'returns complex128; it must return real numbers'),
    ('raise ValueError("a\\nNode: b")', 'ValueError: a Node: b'),
    ('return np.where(epoch == 51, 2, 1)',
     'returns 2 at loss 0, difference -5, label 0, epoch 51'),
    ('return [[1], [2, 3]]', 'mine.py'),
    ('return np.ma.masked_less(loss / 9, 0.1)', 'returns nan at loss 0, '),
])
def test_an_invalid_formula(body, message, tmp_path):
  with pytest.raises(UserError) as error:
    curriculum.get(_custom(tmp_path, body, head='import numpy as np'))
  assert 'mine.py' in str(error.value) and message in str(error.value)
  assert 'v_star' in str(error.value)


@pytest.mark.parametrize('text,message', [
    ('', 'defines no function v_star(loss, difference, label, epoch)'),
    ('v_star = 3', 'defines no function'),
    ('def v_star(loss): return loss', 'TypeError'),
    ('def v_star(:', 'cannot be run: SyntaxError'),
    ('\0', 'cannot be run: '),
    ('import nothing_of_that_name', 'line 1: ModuleNotFoundError'),
    ('\nx = 1 / 0', 'cannot be run: line 2: ZeroDivisionError'),
    ('exit(0)', 'cannot be run: line 1: SystemExit'),
])
def test_a_file_without_a_formula(text, message, tmp_path):
  (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(UserError, match='mine.py') as error:
    curriculum.get(str(tmp_path / 'mine.py'))
  assert message in str(error.value)


def test_unknown_curricula(tmp_path):
  with pytest.raises(UserError,
                     match='self_pace is not a curriculum.*self_paced'):
    curriculum.get('self_pace')
  with pytest.raises(UserError, match='none.py is not a file'):
    curriculum.get(str(tmp_path / 'none.py'))


def test_a_formula_that_fails_later_is_named(tmp_path):
  chosen = curriculum.get(_custom(tmp_path, 'return (loss < 20) / (loss < 20)'))
  x = np.full(1, 25.0)
  with pytest.raises(UserError, match='returns nan at loss 25'):
    chosen.v_star(x, x, x, x)


def test_is_binary():
  assert curriculum.is_binary(np.array([0, 1, 1], np.float32))
  assert curriculum.is_binary(np.ones(2))
  assert not curriculum.is_binary(np.array([0, 0.5, 1]))
