"""The page: which figures and comparisons it shows."""
import pytest

from mentormix.reports import groups
from mentormix.reports import page
from mentormix.reports import rendering
from mentormix.reports import runs
from mentormix.reports.testing import NOISE
from mentormix.reports.testing import write_run


def _page(path, last_k=5):
  """The Markdown report of the runs below `path`, without pictures."""
  found = runs.read([str(path)])
  blocks = page.page(found, groups.group(found), [], last_k)
  return rendering.render('report.md', 'Title', blocks, str(path))


def _row(text, *start):
  """Cells of the one table row that starts with some cells."""
  start = f'| {" | ".join(start)} |'
  row, = [line for line in text.splitlines() if line.startswith(start)]
  return row[len(start):].strip(' |').split(' | ')


def test_tables(written):
  text = (written / 'report.md').read_text(encoding='utf-8')
  noise, student = '40% symmetric_others', 'resnet32, 100 steps'
  assert text.startswith('# Noise \\<b\\> & more\n')
  assert _row(text, 'cifar10', noise, student, 'mentormix', '3') == [
      '1', '80.00 ± 10.00', '95.00 ± 0.00', '87.50 ± 5.00', '94.2', '94.4']
  assert _row(text, 'cifar10', noise, student, 'cross_entropy', '2') == [
      '0', '55.00 ± 7.07', '55.00 ± 7.07', '32.50 ± 3.54', '–', '–']
  ours = 'cifar10', noise, student, 'mentormix', '80.00 ± 10.00'
  assert _row(text, *ours) == [
      'cross_entropy', '55.00 ± 7.07', 'ahead by 25.00',
      'not the same: learning_rate']
  assert 'ahead in 1 of 1 comparisons' in text
  assert '29.4 M parameters, 200,000 steps' in text
  assert 'not to be had without a clean test set' in text
  assert 'failed: x.py: error: a \\| b \\<i\\>' in text
  assert '| unfinished | 100 of 101 |' in text
  assert text.count('| – | 0.8000 | 500 | 0.7000 | 0.6000 |') == 3


@pytest.mark.parametrize('last,verdict', [
    (0.6, 'not ahead: behind by 20.00'), (0.8, 'not ahead: equal'),
    (0.79999, 'not ahead: equal'), (0.9, 'ahead by 10.00')])
def test_verdicts(tmp_path, last, verdict):
  write_run(tmp_path / 'a', (last,) * 2)
  write_run(tmp_path / 'b', (0.8,) * 2, method='mixup')
  text = _page(tmp_path)
  assert f'| {verdict} | the same |' in text
  assert f'ahead in {int(last == 0.9)} of 1 comparisons' in text


@pytest.mark.parametrize('apart', [
    dict(studentnet='resnet8_thin'), dict(max_number_of_steps=99),
    dict(dataset_name='cifar100'), dict(noise=dict(NOISE, rate_asked=0.2)),
    dict(noise=dict(NOISE, noise_type='symmetric')), dict(noise=None)])
def test_only_like_is_compared(tmp_path, apart):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b', method='cross_entropy', **apart)
  assert 'No data set, noise, student and number of steps' in _page(tmp_path)


@pytest.mark.parametrize('noise', [
    None, dict(NOISE, noise_type='symmetric'),
    dict(noise_type='file', rate_asked=None, rate_realised=0.4)])
def test_nothing_is_published_for_other_noise(tmp_path, noise):
  write_run(tmp_path / 'a', noise=noise)
  assert '| 80.00 | 90.00 | 80.00 | – | – |' in _page(tmp_path, last_k=1)


def test_published_results_of_web_noise(tmp_path):
  write_run(tmp_path / 'a', dataset_name='mini_imagenet_red',
            noise=dict(NOISE, noise_type='red', rate_asked=0.4))
  assert '| 80.00 | 90.00 | 80.00 | – | 47.1 |' in _page(tmp_path, last_k=1)
