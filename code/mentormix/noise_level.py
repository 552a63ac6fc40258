"""The share of wrong labels of a data set: known, or estimated from losses.

`--loss_p_percentile=auto` and the presets take it from here. N is the number of
examples. No TensorFlow here.
"""
import os
import typing

import numpy as np

from mentormix import config as config_lib
from mentormix import files
from mentormix.data import noise_facts
from mentormix.messages import UserError

AUTO = 'auto'  # In place of a percentile.
_LOWEST, _HIGHEST = 0.1, 0.95  # Of the percentiles.
BURN_IN = 10  # Percent of training, as published.
_BURN_IN_WITH_MUCH_NOISE, _MUCH_NOISE = 5, 0.7
_ESTIMATED = f'estimated, {noise_facts.ESTIMATE_FILE}'
_FEWEST = 100  # Losses for an estimate.


class Known(typing.NamedTuple):
  """A noise rate."""
  rate: float  # 0 to 1.
  source: str  # Where it comes from, in words.

  @property
  def note(self):
    """What a line says behind an estimated rate; '' for a known one."""
    return f' ({self.source})' if self.source == _ESTIMATED else ''


def find(data_dir, first='rate_asked'):
  """The noise rate of a data set.

  It is the rate asked for or realised in noise.json; without that file, the
  name of the directory; and if neither says it, what `code/estimate_noise.py`
  has estimated.

  Args:
    data_dir: directory of the data set.
    first: rate_asked, or rate_realised, which differs where a wrong label may
      be the right one by chance.

  Returns:
    A `Known`, or None.

  Raises:
    UserError: one of the files is damaged.
  """
  facts = noise_facts.read_facts(data_dir) or {}
  name = os.path.basename(os.path.normpath(data_dir))
  found = files.read_object(
      os.path.join(data_dir, noise_facts.ESTIMATE_FILE),
      'an estimate of the noise rate') or {}
  for value, source in (
      (facts.get(first), noise_facts.FACTS_FILE),
      (facts.get('rate_asked'), noise_facts.FACTS_FILE),
      (facts.get('rate_realised'), noise_facts.FACTS_FILE),
      (None if facts else name, 'the name of --data_dir'),
      (found.get('rate'), _ESTIMATED)):
    try:
      if 0 <= float(value) <= 1:
        return Known(float(value), source)
    except (TypeError, ValueError, OverflowError):
      pass
  return None


def percentile(rate):
  """The --loss_p_percentile for a noise rate: the share of right labels."""
  return round(min(_HIGHEST, max(_LOWEST, 1 - rate)), 2)


def burn_in(rate):
  """The --burn_in_epoch for a noise rate."""
  return _BURN_IN_WITH_MUCH_NOISE if rate >= _MUCH_NOISE else BURN_IN


def fill(config, given):
  """Replaces `--loss_p_percentile=auto` by a number.

  Args:
    config: a `config.TrainConfig` that holds the word.
    given: names of the settings that the command line gives. The burn-in
      follows the noise rate, too, unless it is among them.

  Returns:
    (config, line): line says what was taken and why.

  Raises:
    UserError: the noise rate is not known.
  """
  if config.method not in config_lib.WEIGHTED:
    default = config_lib.TrainConfig().loss_p_percentile
    return config._replace(loss_p_percentile=default), (
        f'--loss_p_percentile={AUTO}: --method={config.method} does not use it')
  known = find(config.data_dir, 'rate_realised')
  if known is None:
    raise UserError(
        f'--loss_p_percentile={AUTO}: nothing says which share of the labels '
        f'in --data_dir={config.data_dir} is wrong; estimate it with '
        'code/estimate_noise.py, or give a number')
  filled = dict(loss_p_percentile=percentile(known.rate))
  if 'burn_in_epoch' not in given:
    filled['burn_in_epoch'] = burn_in(known.rate)
  words = ' '.join(f'--{name}={value}' for name, value in filled.items())
  return config._replace(**filled), (
      f'--loss_p_percentile={AUTO}, noise {known.rate:.3g} ({known.source}): '
      f'{words}')


class Estimate(typing.NamedTuple):
  """Two normal distributions fitted to losses, those of the clean first."""
  rate: float  # Share of the distribution with the larger mean.
  means: typing.List[float]
  deviations: typing.List[float]


def estimate(losses):
  """Estimates the noise rate from the losses of the given labels.

  Losses of wrong labels are larger, as long as the student has not memorised
  them. A mixture of two normal distributions is fitted (as Li et al., 2020,
  DivideMix, do to divide examples); the share of the one with the larger mean
  is the estimate.

  Args:
    losses: float [N].

  Returns:
    An `Estimate`.

  Raises:
    UserError: there are too few losses, or they do not differ.
    ImportError: there is no scikit-learn.
  """
  from sklearn import mixture  # Only this function needs it.
  if len(losses) < _FEWEST:
    raise UserError(f'{len(losses)} losses are too few for an estimate; it '
                    f'needs at least {_FEWEST}')
  losses = np.asarray(losses, np.float64)
  if losses.std() == 0:
    raise UserError('all losses are equal, so they say nothing about the '
                    'labels')
  # A fixed seed, for the same estimate each time.
  fitted = mixture.GaussianMixture(
      2, n_init=3, random_state=0, reg_covar=1e-6 * losses.var()).fit(
          losses[:, np.newaxis])
  order = np.argsort(fitted.means_[:, 0])
  return Estimate(
      float(fitted.weights_[order[1]]), fitted.means_[order, 0].tolist(),
      np.sqrt(fitted.covariances_[order, 0, 0]).tolist())
