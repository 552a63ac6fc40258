"""Curricula: the weight v* of an ideal MentorNet, and points to learn it from.

    def self_paced(loss, difference, label, epoch):
      return (difference <= 0).astype(float)

v* is a function of four float64 arrays [N]: the loss, its difference to the
moving average, the label (always 0) and the epoch percentage. It returns
weights [N] from 0 to 1. The curricula here are predefined (MentorNet paper,
section 3.2 and table of predefined curricula; published code). A custom one is
a Python file that defines such a function, `v_star`. NumPy only.
"""
import os
import runpy
import traceback
import typing

import numpy as np

from mentormix.messages import UserError

_ROUNDING = 1e-9  # Weights up to this far outside 0..1 are clipped.
FUNCTION = 'v_star'  # The function that a custom curriculum defines.


class Curriculum(typing.NamedTuple):
  """A weighting scheme."""
  name: str  # Of the function, or of the file without its ending.
  v_star: typing.Callable  # loss, difference, label, epoch -> weights, all [N].
  about: str  # A line or two for a card.
  phases: tuple  # (first, last) epoch percentage of each formula.


def baseline(loss, difference, label, epoch):
  """1: every example counts."""
  del difference, label, epoch
  return np.ones_like(loss)


def self_paced(loss, difference, label, epoch):
  """1 where d <= 0, else 0: easy examples, up to the moving average."""
  del loss, label, epoch
  return (difference <= 0).astype(np.float64)


def hard_example_mining(loss, difference, label, epoch):
  """1 where d >= 0, else 0: hard examples, from the moving average on."""
  del loss, label, epoch
  return (difference >= 0).astype(np.float64)


def focal(loss, difference, label, epoch):
  """Focal loss: (1 - p)^gamma, where p = exp(-loss) and gamma = 2."""
  del difference, label, epoch
  return (1 - np.exp(-loss)) ** 2


def spcl_linear(loss, difference, label, epoch):
  """SPCL linear: 1 - d / gamma, cut to 0..1, where gamma = 1."""
  del loss, label, epoch
  return np.clip(1 - difference, 0, 1)


def mentornet_pd(loss, difference, label, epoch):
  """1 to e = 18, then self-paced (1 where d <= 0), from e = 90 SPCL linear."""
  point = loss, difference, label, epoch
  return np.where(epoch <= 18, baseline(*point),
                  np.where(epoch < 90, self_paced(*point),
                           spcl_linear(*point)))


ALWAYS = ((0, 99),)
CURRICULA = {
    f.__name__: Curriculum(f.__name__, f, f.__doc__, phases)
    for f, phases in (
        (baseline, ALWAYS),
        (self_paced, ALWAYS),
        (hard_example_mining, ALWAYS),
        (focal, ALWAYS),
        (spcl_linear, ALWAYS),
        (mentornet_pd, ((0, 18), (19, 89), (90, 99))))}


def stages(phases):
  """Epoch percentages to show: the ends of the phases, or five for one phase.

  Args:
    phases: (first, last) percentage of each, as in `Curriculum`.
  """
  if len(phases) == 1:
    return [0, 25, 50, 75, 99]
  return sorted({epoch for phase in phases for epoch in phase})


def get(name):
  """Finds a predefined curriculum, or runs a Python file that defines one.

  What the function of a file returns is checked at every call.

  Args:
    name: a key of `CURRICULA`, or the path of a file, ending in .py, that
      defines v_star(loss, difference, label, epoch).

  Returns:
    A `Curriculum`.

  Raises:
    UserError: there is no such curriculum; the file cannot be run or does not
      define the function; or the function fails or does not return weights.
  """
  if name in CURRICULA:
    return CURRICULA[name]
  if not name.endswith('.py'):
    raise UserError(
        f'{name} is not a curriculum; known are {", ".join(CURRICULA)}, and a '
        f'Python file (.py) that defines {FUNCTION}(loss, difference, label, '
        'epoch)')
  if not os.path.isfile(name):
    raise UserError(f'{name} is not a file')
  try:
    # With this name, code under `if __name__ == '__main__'` does not run.
    function = runpy.run_path(name, run_name='curriculum').get(FUNCTION)
  except (Exception, SystemExit) as error:  # Whatever the file does.
    raise UserError(f'{name} cannot be run: {_describe(error, name)}')
  if not callable(function):
    raise UserError(f'{name} defines no function {FUNCTION}(loss, difference, '
                    'label, epoch)')

  def v_star(*point):
    return _checked(name, function, point)

  probe = np.meshgrid(np.linspace(0, 5, 11), np.linspace(-5, 5, 101),
                      np.arange(100.0))
  loss, difference, epoch = (x.ravel() for x in probe)
  v_star(loss, difference, np.zeros_like(loss), epoch)
  stem = os.path.splitext(os.path.basename(name))[0]
  about = str(function.__doc__ or f'the function in {os.path.basename(name)}')
  return Curriculum(stem, v_star, ' '.join(about.split()), ALWAYS)


def _checked(path, function, point):
  """The weights [N] float64 that a user's function returns."""
  shape = point[0].shape
  try:
    # Copies, so that the function can change its arguments. What it masks is
    # not a weight.
    v = np.asarray(np.ma.filled(function(*(x.copy() for x in point)), np.nan))
  except (Exception, SystemExit) as error:  # Whatever the function does.
    raise UserError(
        f'{path}: {FUNCTION}(loss, difference, label, epoch), called with '
        f'arrays [N], failed: {_describe(error, path)}')
  if v.shape != shape:
    raise UserError(
        f'{path}: {FUNCTION} returns the shape {list(v.shape)} for arrays of '
        f'the shape {list(shape)}; it must return one weight for each example')
  if v.dtype.kind not in 'biuf':
    raise UserError(f'{path}: {FUNCTION} returns {v.dtype}; it must return '
                    'real numbers')
  bad = ~((v >= -_ROUNDING) & (v <= 1 + _ROUNDING))  # NaN, too.
  if bad.any():
    first = np.argmax(bad.ravel())
    loss, difference, label, epoch = (x.ravel()[first] for x in point)
    raise UserError(
        f'{path}: {FUNCTION} returns {v.ravel()[first]:g} at loss {loss:g}, '
        f'difference {difference:g}, label {label:g}, epoch {epoch:g}; weights '
        'must be between 0 and 1')
  return np.clip(v, 0, 1).astype(np.float64)


def _describe(error, path):
  """The exception and, if it was raised in that file, its line."""
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
           if frame.filename == path]
  where = f'line {lines[-1]}: ' if lines else ''
  return f'{where}{type(error).__name__}: {" ".join(str(error).split())}'


def grid():
  """Every point of the published training grid.

  Returns:
    [N, 4] float32 rows (loss, d, label, e): loss 0..10 by 0.1 and 10..30 by 1,
    d -5..5 by 0.1, e 0..99; the label is always 0.
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
    (features [M, 4], v_star [M]) to learn from, and the same to test on, all
    float32.
  """
  points = grid()
  rows = np.random.RandomState(seed).permutation(len(points))[:size]
  features = points[rows]
  v_star = curriculum.v_star(*features.astype(np.float64).T).astype(np.float32)
  cut = int(round(size * (1 - held_out)))
  return (features[:cut], v_star[:cut]), (features[cut:], v_star[cut:])


def is_binary(v_star):
  """Whether all weights are 0 or 1."""
  return set(np.unique(v_star)) <= {0, 1}
