"""Curricula: the weight v* an ideal MentorNet gives, and where it learns them.

    def self_paced(loss, difference, label, epoch):
      return (difference <= 0).astype(float)

v* is a function of the loss, of the difference between the loss and its moving
average, of the label (which is always 0) and of the epoch percentage, arrays
[N] float64 all; it returns weights [N] from 0 to 1. The ones here are
predefined (MentorNet paper, section 3.2 and table of predefined curricula;
published code); one's own is a Python file that defines such a function,
`v_star`. NumPy only.
"""
import collections
import os
import sys
import types

import numpy as np

from mentormix.command import UserError

_ROUNDING = 1e-9  # A weight may be so far outside; it is cut.
FUNCTION = 'v_star'  # What a file with a curriculum of one's own defines.


class Curriculum(collections.namedtuple(
    'Curriculum', 'name v_star about phases')):
  """A weighting scheme.

  Attributes:
    name: of the function, or of the file without its ending.
    v_star: (loss, difference, label, epoch), [N] each -> weights [N] in [0, 1].
    about: a line or two for a card.
    phases: (first, last) epoch percentage of each stretch with one formula.
  """
  __slots__ = ()


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


def focal(loss, difference, label, epoch, gamma=2.0):
  """Focal loss: (1 - p)^gamma, where p = exp(-loss) and gamma = 2."""
  del difference, label, epoch
  return (1 - np.exp(-loss)) ** gamma


def spcl_linear(loss, difference, label, epoch, gamma=1.0):
  """SPCL linear: 1 - d / gamma, cut to 0..1, where gamma = 1."""
  del loss, label, epoch
  return np.clip(1 - difference / gamma, 0, 1)


def mentornet_pd(loss, difference, label, epoch):
  """1 to e = 18, then self-paced (1 where d <= 0), from e = 90 SPCL linear."""
  point = loss, difference, label, epoch
  return np.where(epoch <= 18, baseline(*point),
                  np.where(epoch < 90, self_paced(*point),
                           spcl_linear(*point)))


ALWAYS = ((0, 99),)
CURRICULA = collections.OrderedDict(
    (f.__name__, Curriculum(f.__name__, f, f.__doc__, phases))
    for f, phases in (
        (baseline, ALWAYS),
        (self_paced, ALWAYS),
        (hard_example_mining, ALWAYS),
        (focal, ALWAYS),
        (spcl_linear, ALWAYS),
        (mentornet_pd, ((0, 18), (19, 89), (90, 99)))))


def stages(phases):
  """Epoch percentages worth a look: the ends of all phases; of one, some.

  Args:
    phases: (first, last) percentage of each, as in `Curriculum`.
  """
  if len(phases) == 1:
    return [0, 25, 50, 75, 99]
  return sorted({epoch for phase in phases for epoch in phase})


def get(name):
  """The curriculum of that name, or of that Python file.

  The file is run, with all that it does. What its function returns is checked
  whenever it is called.

  Args:
    name: a key of `CURRICULA`, or the path of a file, ending in .py, that
      defines v_star(loss, difference, label, epoch).

  Returns:
    A `Curriculum`.

  Raises:
    UserError: there is none; the file cannot be run, or defines no such
      function, or it raises, or returns no weights.
  """
  if name in CURRICULA:
    return CURRICULA[name]
  if not name.endswith('.py'):
    raise UserError('%s is no curriculum; known are %s, and a Python file '
                    '(.py) that defines %s(loss, difference, label, epoch)'
                    % (name, ', '.join(CURRICULA), FUNCTION))
  function = getattr(_run_file(name), FUNCTION, None)
  if not callable(function):
    raise UserError('%s defines no function %s(loss, difference, label, epoch)'
                    % (name, FUNCTION))

  def v_star(*point):
    return _checked(name, function, point)

  probe = np.meshgrid(np.linspace(0, 5, 11), np.linspace(-5, 5, 101),
                      np.arange(100.0))
  loss, difference, epoch = (x.ravel() for x in probe)
  v_star(loss, difference, np.zeros_like(loss), epoch)
  stem = os.path.splitext(os.path.basename(name))[0]
  about = ' '.join(str(function.__doc__ or 'the function in %s'
                    % os.path.basename(name)).split())
  return Curriculum(stem, v_star, about, ALWAYS)


def _run_file(path):
  """The module that a Python file makes."""
  try:
    with open(path, 'rb') as f:
      code = compile(f.read(), path, 'exec')
  except OSError as error:
    raise UserError('%s cannot be read: %s' % (path, error.strerror))
  except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
    raise UserError('%s is no Python file: %s' % (path, error))
  # Its own name, so that what it has under `if __name__ == ...` does not run.
  module = types.ModuleType('curriculum')
  module.__file__ = path
  previous = sys.modules.get(module.__name__)
  sys.modules[module.__name__] = module  # Dataclasses look themselves up there.
  try:
    exec(code, module.__dict__)  # pylint: disable=exec-used
  except (Exception, SystemExit) as error:  # Whatever the file does.
    raise UserError('%s cannot be run: %s' % (path, _describe(error, path)))
  finally:
    del sys.modules[module.__name__]
    if previous:
      sys.modules[module.__name__] = previous
  return module


def _checked(path, function, point):
  """The weights [N] float64 that a user's function returns."""
  shape = point[0].shape
  try:
    # Copies: what it does to its arguments is to stay there.
    returned = function(*(x.copy() for x in point))
    v = np.asarray(returned)
  except (Exception, SystemExit) as error:  # Whatever the function does.
    raise UserError('%s: %s(loss, difference, label, epoch), called with '
                    'arrays [N], failed: %s'
                    % (path, FUNCTION, _describe(error, path)))
  if isinstance(returned, np.ma.MaskedArray):
    raise UserError('%s: %s returns a masked array; it must return a weight '
                    'for every example, as from .filled(0)' % (path, FUNCTION))
  if v.shape != shape:
    raise UserError('%s: %s returns the shape %s for arrays of the shape %s; '
                    'it must return one weight for each example'
                    % (path, FUNCTION, list(v.shape), list(shape)))
  if v.dtype.kind not in 'biuf':
    raise UserError('%s: %s returns %s; it must return real numbers'
                    % (path, FUNCTION, v.dtype))
  bad = ~((v >= -_ROUNDING) & (v <= 1 + _ROUNDING))  # NaN, too.
  if bad.any():
    first = np.argmax(bad.ravel())
    raise UserError('%s: %s returns %g at loss %g, difference %g, label %g, '
                    'epoch %g; weights must be between 0 and 1'
                    % ((path, FUNCTION, v.ravel()[first])
                       + tuple(x.ravel()[first] for x in point)))
  return np.clip(v, 0, 1).astype(np.float64)


def _describe(error, path):
  """What was raised and, if in that file, on which line."""
  line, trace = None, error.__traceback__
  while trace:
    if trace.tb_frame.f_code.co_filename == path:
      line = trace.tb_lineno
    trace = trace.tb_next
  return '%s%s: %s' % ('line %d: ' % line if line else '',
                       type(error).__name__, ' '.join(str(error).split()))


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
  v_star = curriculum.v_star(*features.astype(np.float64).T).astype(np.float32)
  cut = int(round(size * (1 - held_out)))
  return (features[:cut], v_star[:cut]), (features[cut:], v_star[cut:])


def is_binary(v_star):
  """Whether all weights are 0 or 1; decides the loss they are learned with."""
  return set(np.unique(v_star)) <= {0, 1}
