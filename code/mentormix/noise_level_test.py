"""The noise rate of a data set, and what follows from it."""
import json

import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import noise_level
from mentormix.messages import UserError


def _write(directory, **contents):
  directory.mkdir(exist_ok=True)
  for name, content in contents.items():
    (directory / f'{name}.json').write_text(json.dumps(content))
  return str(directory)


@pytest.mark.parametrize('files,asked,realised', [
    (dict(noise=dict(rate_asked=0.4, rate_realised=0.36)), 0.4, 0.36),
    (dict(noise=dict(rate_asked=None, rate_realised=0.36)), 0.36, 0.36),
    (dict(noise=dict(rate_asked=0.4, rate_realised=None),
          noise_estimate=dict(rate=0.1)), 0.4, 0.4),
    (dict(noise=dict(rate_asked=None, rate_realised=None),
          noise_estimate=dict(rate=0.1)), 0.1, 0.1),
    (dict(noise_estimate=dict(rate=0.1)), 0.3, 0.3),  # The directory's name.
    (dict(noise=dict(rate_asked=None)), None, None)])
def test_where_the_rate_comes_from(tmp_path, files, asked, realised):
  path = _write(tmp_path / '0.3', **files)
  found = [noise_level.find(path), noise_level.find(path, 'rate_realised')]
  assert [known and known.rate for known in found] == [asked, realised]


@pytest.mark.parametrize('rate,p,burn_in', [
    (0, 0.95, 10), (0.2, 0.8, 10), (0.4021, 0.6, 10), (0.8, 0.2, 5),
    (1, 0.1, 5)])
def test_what_follows_from_the_rate(tmp_path, rate, p, burn_in):
  path = _write(tmp_path / 'x', noise=dict(rate_realised=rate))
  config = config_lib.TrainConfig(
      data_dir=path, loss_p_percentile=noise_level.AUTO, burn_in_epoch=3)
  filled, line = noise_level.fill(config, {'loss_p_percentile'})
  assert (filled.loss_p_percentile, filled.burn_in_epoch) == (p, burn_in)
  assert f'noise {rate:.3g} (noise.json)' in line
  assert f'--loss_p_percentile={p} --burn_in_epoch={burn_in}' in line
  filled, line = noise_level.fill(config, {'burn_in_epoch'})
  assert (filled.loss_p_percentile, filled.burn_in_epoch) == (p, 3)
  assert 'burn_in' not in line


def test_a_rate_that_nobody_knows(tmp_path):
  config = config_lib.TrainConfig(data_dir=_write(tmp_path / 'x'),
                                  loss_p_percentile=noise_level.AUTO)
  with pytest.raises(UserError, match='--loss_p_percentile=auto: nothing says'):
    noise_level.fill(config, set())
  filled, line = noise_level.fill(config._replace(method='mixup'), set())
  assert filled.loss_p_percentile == config_lib.TrainConfig().loss_p_percentile
  assert 'does not use it' in line


@pytest.mark.parametrize('rate', [0.1, 0.4, 0.8])
def test_an_estimate(rate):
  """Losses of two normal distributions, shuffled."""
  pytest.importorskip('sklearn')
  random = np.random.RandomState(0)
  wrong = random.rand(4000) < rate
  losses = np.where(wrong, random.normal(4.0, 0.8, 4000),
                    random.normal(0.6, 0.4, 4000))
  found = noise_level.estimate(losses)
  assert found.rate == pytest.approx(wrong.mean(), abs=0.01)
  assert found.means == pytest.approx([0.6, 4.0], abs=0.1)
  assert found.deviations == pytest.approx([0.4, 0.8], abs=0.1)
  assert found == noise_level.estimate(losses)


def test_losses_without_an_estimate():
  pytest.importorskip('sklearn')
  with pytest.raises(UserError, match='99 losses are too few'):
    noise_level.estimate(np.arange(99.0))
  with pytest.raises(UserError, match='all losses are equal'):
    noise_level.estimate(np.ones(100))
