"""Areas under curves, by hand and as shares of pairs."""
import numpy as np
import pytest

from mentormix import detection


def _flags(*values):
  return np.array(values, bool)


@pytest.mark.parametrize('values,is_positive,auc,average_precision', [
    ([4, 3, 2, 1], _flags(1, 1, 0, 0), 1, 1),
    ([1, 2, 3, 4], _flags(1, 1, 0, 0), 0, (1 / 3. + 2 / 4.) / 2),
    # Pairs: 4 > 3, 4 > 1, 3 = 3, 3 > 1. Precision 1 at 4, 2/3 at 3.
    ([4, 3, 3, 1], _flags(1, 1, 0, 0), 3.5 / 4, (1 + 2 / 3.) / 2),
    ([5, 5, 5, 5], _flags(1, 0, 0, 0), 0.5, 0.25),
    ([1, 2], _flags(0, 0), None, None),
    ([1, 2], _flags(1, 1), None, None),
    ([], _flags(), None, None),
])
def test_ranking_by_hand(values, is_positive, auc, average_precision):
  values = np.array(values, np.float32)
  assert detection.auc(values, is_positive) == (
      None if auc is None else pytest.approx(auc))
  assert detection.average_precision(values, is_positive) == (
      None if auc is None else pytest.approx(average_precision))


@pytest.mark.parametrize('levels', [3, 50, 10 ** 6])
def test_auc_is_the_share_of_pairs(levels):
  random = np.random.RandomState(3)
  is_positive = random.rand(500) < 0.3
  values = random.randint(levels, size=500)
  sign = np.sign(values[is_positive][:, None] - values[~is_positive][None])
  assert detection.auc(values, is_positive) == pytest.approx(
      ((sign + 1) / 2).mean())
