"""The report: on runs written by hand, and as it is typed."""
import csv
import os
import re
import subprocess
import sys

import pytest

import report
from mentormix.reports import page
from mentormix.reports import panels
from mentormix.reports import rendering
from mentormix.reports import runs as runs_lib
from mentormix.reports.runs_test import NOISE
from mentormix.reports.runs_test import SCORES
from mentormix.reports.runs_test import write_run

CODE = os.path.dirname(os.path.abspath(report.__file__))
PICTURES = ['accuracy_vs_noise.png', 'accuracy_vs_step.png', 'selection.png',
            'weights.png']
WEIGHTS = {'v/clean': {10: 1, 50: 0.9}, 'v/noisy': {10: 1, 50: 0.2},
           'v/precision': {10: 0.6, 50: float('nan')}, 'v/recall': {10: 1}}


def _run(*args):
  process = subprocess.run(
      [sys.executable, os.path.join(CODE, 'report.py')] + list(args),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  return process.returncode, process.stdout, process.stderr


def _page(path, last_k=5):
  """The Markdown report of the runs below `path`, without pictures."""
  runs = runs_lib.read([str(path)])
  blocks = page.page(runs, runs_lib.group(runs), [], last_k)
  return rendering.render('report.md', 'Title', blocks, str(path))


def _row(text, *start):
  """Cells of the one table row that starts with some cells."""
  start = '| %s |' % ' | '.join(start)
  row, = [line for line in text.splitlines() if line.startswith(start)]
  return row[len(start):].strip(' |').split(' | ')


def _csv(path):
  with open(str(path), encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """The directory of a report on eight runs, and what was printed."""
  runs = tmp_path_factory.mktemp('runs')
  for seed, last in enumerate((0.7, 0.8, 0.9)):
    write_run(runs / ('mix%d' % seed), (0.1, 0.95, last), seed=seed,
              events=WEIGHTS, scores=dict(SCORES, auc=None))
  for seed, last in enumerate((0.5, 0.6)):
    write_run(runs / ('plain%d' % seed), (0.1, last), seed=seed,
              method='cross_entropy', learning_rate=0.2)
  write_run(runs / 'stopped', (0.1, 0.3), max_number_of_steps=101)
  write_run(runs / 'broken', ())
  (runs / 'broken' / 'train.txt').write_text('x.py: error: a | b <i>\n')
  write_run(runs / 'other', noise=dict(NOISE, rate_asked=0.2))
  directory = tmp_path_factory.mktemp('report')
  (directory / 'mine.txt').write_text('stays')
  code, out, err = _run('--runs=%s,%s' % (runs / 'mix0', runs),
                        '--output_dir=%s' % directory, '--last_k=2',
                        '--title=Noise <b> & more')
  assert code == 0, err
  assert not err
  return directory, out


def test_files(written):
  directory, out = written
  assert sorted(p.name for p in directory.iterdir()) == sorted(PICTURES + [
      'mine.txt', 'report.csv', 'report.html', 'report.md', 'runs.csv'])
  assert out == ('%s: 8 runs, 6 finished. Left out of all figures: 1 failed, '
                 '1 unfinished.\n' % (directory / 'report.html'))
  for name in PICTURES:
    assert (directory / name).read_bytes().startswith(b'\x89PNG')


def test_the_page_is_one_file(written):
  text = (written[0] / 'report.html').read_text(encoding='utf-8')
  assert text.count('src="data:image/png;base64,') == len(PICTURES)
  assert text.count('src=') == len(PICTURES)
  assert not re.search(r'href|https?://|<script|<link|@import|url\(', text)
  assert '<title>Noise &lt;b&gt; &amp; more</title>' in text
  assert 'error: a | b &lt;i&gt;' in text
  assert text.count('<tr>') == text.count('</tr>') > 10


def test_groups_in_csv(written):
  rows = {(row['noise_level'], row['method']): row
          for row in _csv(written[0] / 'report.csv')}
  assert len(rows) == 3
  row = rows['0.4', 'mentormix']
  assert (row['runs'], row['left_out']) == ('3', '1')  # The broken one.
  assert (row['last_mean'], row['last_deviation']) == ('80.0000', '10.0000')
  assert (row['peak_mean'], row['peak_deviation']) == ('95.0000', '0.0000')
  assert row['median_of_2_mean'] == '87.5000'  # Of 82.5, 87.5 and 92.5.
  assert row['median_of_2_deviation'] == '5.0000'
  assert (row['paper'], row['published_code']) == ('94.2000', '94.4000')
  assert row['noise'] == '40% symmetric_others'
  row = rows['0.4', 'cross_entropy']
  assert row['last_mean'] == '55.0000'
  assert row['last_deviation'] == '7.0711'  # sqrt(50).
  assert row['paper'] == row['published_code'] == ''
  assert rows['0.2', 'mentormix']['last_deviation'] == ''


def test_runs_in_csv(written):
  rows = {os.path.basename(row['path']): row
          for row in _csv(written[0] / 'runs.csv')}
  assert len(rows) == 8
  assert rows['mix1']['state'] == 'finished'
  assert rows['mix1']['last'] == '80.0000'
  assert rows['mix1']['seed'] == '1' and rows['mix1']['mixup_alpha'] == '8.0'
  assert rows['stopped']['state'] == 'unfinished'
  assert rows['stopped']['last'] == ''
  assert rows['broken']['message'] == 'x.py: error: a | b <i>'


def test_tables(written):
  text = (written[0] / 'report.md').read_text(encoding='utf-8')
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
  assert 'nobody could have picked' in text
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
  assert '| %s | the same |' % verdict in text
  assert 'ahead in %d of 1 comparisons' % (last == 0.9) in text


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


def test_variants_are_named(tmp_path):
  write_run(tmp_path / 'a', mixup_alpha=2.0, second_reweight=False)
  write_run(tmp_path / 'b', mixup_alpha=8.0)
  text = _page(tmp_path)
  assert '| mentormix (mixup_alpha 2, second_reweight False) | 1 |' in text
  assert '| mentormix (mixup_alpha 8, second_reweight True) | 1 |' in text


def test_nothing_finished_yet(tmp_path):
  write_run(tmp_path / 'runs' / 'a', max_number_of_steps=1000)
  (tmp_path / 'weights.png').write_text('of an earlier call')
  code, _, err = _run('--runs=%s' % (tmp_path / 'runs'),
                      '--output_dir=%s' % tmp_path)
  assert code == 0, err
  assert not list(tmp_path.glob('*.png'))
  assert (tmp_path / 'report.csv').read_text() == ''
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert 'No run has finished yet.' in text
  assert '| unfinished | 100 of 1,000 | – | – |' in text


def test_no_weights_no_picture_of_them(tmp_path):
  """Methods that weight nothing are not drawn, whatever was logged."""
  write_run(tmp_path / 'a', method='mixup', events=WEIGHTS)
  write_run(tmp_path / 'b', noise=None, data_dir='d/web')
  groups = runs_lib.group(runs_lib.read([str(tmp_path)]))
  assert panels.draw(groups, str(tmp_path)) == ['accuracy_vs_step.png',
                                                'accuracy_vs_noise.png']
  groups = [g for g in groups if g.method == 'mentormix']
  assert panels.draw(groups, str(tmp_path)) == ['accuracy_vs_step.png']
  assert not (tmp_path / 'accuracy_vs_noise.png').exists()


@pytest.mark.parametrize('flags,message', [
    (['--output_dir=x'], '--runs is missing'),
    (['--runs=.'], '--output_dir is missing'),
    (['--runs=.', '--output_dir=x', '--last_k=0'], 'last_k=0'),
    (['--runs=/nowhere', '--output_dir=x'], '/nowhere is not a directory'),
    (['--runs=%(tmp)s/none', '--output_dir=x'], 'none holds no run'),
    (['--runs=%(tmp)s/bad', '--output_dir=x'], 'config.json cannot be read'),
    (['--runs=%(tmp)s/new', '--output_dir=x'], 'no run has results'),
    (['--runs=%(tmp)s/good', '--output_dir=/proc/x'], '--output_dir=/proc/x'),
    (['--rnus=%(tmp)s/good', '--output_dir=x'], 'Did you mean: runs'),
    (['stray'], "unexpected argument 'stray'"),
])
def test_bad_input_is_one_line(tmp_path, flags, message):
  (tmp_path / 'none').mkdir()
  write_run(tmp_path / 'good')
  write_run(tmp_path / 'new', ())
  write_run(tmp_path / 'bad')
  (tmp_path / 'bad' / 'train' / 'config.json').write_text('{')
  code, out, err = _run(*[flag % {'tmp': tmp_path} for flag in flags])
  assert code == 2, (code, out, err)
  assert err.count('\n') == 1 and message in err, err
  assert not os.path.exists('x')
