"""Predefined curricula: the weight v* an ideal MentorNet gives, and where.

v* is a function of the loss, of the difference d between loss and its moving
average, and of the epoch percentage e (MentorNet paper, section 3.2 and table
of predefined curricula; published code). NumPy only.
"""
import collections

import numpy as np


class Curriculum(collections.namedtuple(
    'Curriculum', 'v_star binary about phases')):
  """A weighting scheme.

  Attributes:
    v_star: (loss, d, e), arrays of one shape -> weights in [0, 1].
    binary: whether v* is always 0 or 1; decides the loss it is learned with.
    about: one line for a card.
    phases: (first, last) epoch percentage of each stretch with one formula.
  """
  __slots__ = ()


def baseline(loss, d, e):
  """1: every example counts."""
  del d, e
  return np.ones_like(loss)


def self_paced(loss, d, e):
  """1 where d <= 0, else 0: easy examples, up to the moving average."""
  del loss, e
  return (d <= 0).astype(np.float64)


def hard_example_mining(loss, d, e):
  """1 where d >= 0, else 0: hard examples, from the moving average on."""
  del loss, e
  return (d >= 0).astype(np.float64)


def focal(loss, d, e, gamma=2.0):
  """Focal loss: (1 - p)^gamma, where p = exp(-loss) and gamma = 2."""
  del d, e
  return (1 - np.exp(-loss)) ** gamma


def spcl_linear(loss, d, e, gamma=1.0):
  """SPCL linear: 1 - d / gamma, cut to 0..1, where gamma = 1."""
  del loss, e
  return np.clip(1 - d / gamma, 0, 1)


def mentornet_pd(loss, d, e):
  """1 to e = 18, then self-paced (1 where d <= 0), from e = 90 SPCL linear."""
  return np.where(e <= 18, baseline(loss, d, e),
                  np.where(e < 90, self_paced(loss, d, e),
                           spcl_linear(loss, d, e)))


_ALWAYS = ((0, 99),)
CURRICULA = {
    f.__name__: Curriculum(f, binary, f.__doc__, phases)
    for f, binary, phases in (
        (baseline, True, _ALWAYS),
        (self_paced, True, _ALWAYS),
        (hard_example_mining, True, _ALWAYS),
        (focal, False, _ALWAYS),
        (spcl_linear, False, _ALWAYS),
        (mentornet_pd, False, ((0, 18), (19, 89), (90, 99))))
}


def grid():
  """Every point of the published training grid.

  Returns:
    [N, 4] float32 rows (loss, d, label, e): loss 0..10 by 0.1 and 10..30 by 1,
    d -5..5 by 0.1, e 0..99; the label is 0, as it is when the net is used.
  """
  loss = np.concatenate([np.arange(101) / 10.0, np.arange(11, 31)])
  d = np.arange(-50, 51) / 10.0
  e = np.arange(100)
  rows = np.stack(np.meshgrid(loss, d, [0], e, indexing='ij'), axis=-1)
  return rows.reshape(-1, 4).astype(np.float32)


def training_set(curriculum, size=100000, held_out=0.2, seed=0):
  """Points drawn from the grid with their v*.

  Args:
    curriculum: a `Curriculum`.
    size: rows drawn, without replacement.
    held_out: share of them that is held out.
    seed: of the draw.

  Returns:
    (features [M, 4], v_star [M]) to learn from and the same to test on, all
    float32.
  """
  points = grid()
  rows = np.random.RandomState(seed).permutation(len(points))[:size]
  features = points[rows]
  loss, d, _, e = features.astype(np.float64).T
  v_star = curriculum.v_star(loss, d, e).astype(np.float32)
  cut = int(round(size * (1 - held_out)))
  return (features[:cut], v_star[:cut]), (features[cut:], v_star[cut:])
