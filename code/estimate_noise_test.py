"""From the scores of a run to the percentile of the next one."""
import json
import shutil

import cifar_train_mentormix
import estimate_noise
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import testing

pytest.importorskip('sklearn')


@pytest.fixture
def data(digits, tmp_path):
  """A copy of the digits whose noise rate nobody knows: a directory."""
  shutil.copytree(f'{digits}/0.4', str(tmp_path / 'data'))
  path = tmp_path / 'data' / 'noise.json'
  facts = json.loads(path.read_text())
  facts.update(rate_asked=None, rate_realised=None)
  path.write_text(json.dumps(facts))
  return tmp_path / 'data'


def _write_scores(directory, losses):
  directory.mkdir(exist_ok=True)
  rows = ['id,loss'] + [f'{n},{loss}' for n, loss in enumerate(losses)]
  (directory / 'scores.csv').write_text('\n'.join(rows) + '\n')
  return directory


def _losses(count, rate):
  random = np.random.RandomState(0)
  return np.where(random.rand(count) < rate, random.normal(3, 0.5, count),
                  random.normal(0.5, 0.3, count))


def _estimate(data, scores):
  return testing.run_command(estimate_noise, *testing.to_flags(
      data_dir=data, scores_dir=scores))


def test_training_takes_the_estimate(data, tmp_path):
  count = json.loads((data / 'noise.json').read_text())['num_examples']
  settings = testing.to_flags(**testing.train_settings(
      str(data.parent), data_dir=data, train_log_dir=tmp_path / 'run',
      loss_p_percentile='auto'))
  testing.assert_one_line(
      testing.run_command(cifar_train_mentormix, *settings), 2,
      '--loss_p_percentile=auto: nothing says', 'code/estimate_noise.py')
  code, out, err = _estimate(
      data, _write_scores(tmp_path / 'scores', _losses(count, 0.3)))
  assert code == 0, err
  assert 'about 30' in out and '--loss_p_percentile=auto now takes 0.7' in out
  for words in ('noise 0.3', ''):
    code, out, err = testing.run_command(cifar_train_mentormix, *settings)
    assert code == 0, err  # The second time, it is the same run.
    assert words in out and 'estimated, noise_estimate.json' in out
  config = config_lib.restore(str(tmp_path / 'run'))
  assert 0.65 < config.loss_p_percentile < 0.75
  code, out, err = testing.run_command(
      cifar_train_mentormix, f'--data_dir={data}', '--preset=cpu',
      f'--train_log_dir={tmp_path / "cpu"}', '--max_number_of_steps=1')
  assert code == 0, err
  assert '(estimated, noise_estimate.json)' in out


@pytest.mark.parametrize('rows,words', [
    ('id,loss\n1,nan\n', 'does not hold the losses'),
    ('id,loss\n', 'does not hold the losses'),
    ('id\n1\n', 'does not hold the losses'),
    ('id,loss\n1,x\n', 'does not hold the losses'),
    ('id,loss\n1,0.5\n', 'has 1 rows, but --data_dir='),
    (None, 'name the --output_dir of code/score_labels.py')])
def test_scores_that_do_not_fit(data, tmp_path, rows, words):
  if rows:
    (tmp_path / 'scores.csv').write_text(rows)
  testing.assert_one_line(_estimate(data, tmp_path), 2,
                          str(tmp_path / 'scores.csv'), words)
  assert not (data / 'noise_estimate.json').exists()


def test_a_known_rate_goes_before(data, tmp_path):
  path = data / 'noise.json'
  facts = dict(json.loads(path.read_text()), rate_realised=0.4)
  path.write_text(json.dumps(facts))
  scores = _write_scores(tmp_path / 'scores',
                         _losses(facts['num_examples'], 0.3))
  code, out, err = _estimate(data, scores)
  assert code == 0, err
  assert 'noise.json says 40.0%, which goes before' in out


@pytest.mark.parametrize('value', ['automatic', 'none', '2'])
def test_other_words_are_no_percentile(digits, tmp_path, value):
  testing.assert_one_line(
      testing.run_command(cifar_train_mentormix, *testing.to_flags(
          **testing.train_settings(digits, train_log_dir=tmp_path / 'run',
                                   loss_p_percentile=value))), 2,
      'loss_p_percentile')
