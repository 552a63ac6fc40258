"""The files of a report."""
import csv
import os
import re

import pytest

from mentormix.reports import blocks
from mentormix.reports import rendering

PICTURES = ['accuracy_vs_noise.png', 'accuracy_vs_step.png',
            'drop_vs_noise.png', 'selection.png', 'weights.png']


def test_files(written):
  assert sorted(p.name for p in written.iterdir()) == sorted(PICTURES + [
      'mine.txt', 'report.csv', 'report.html', 'report.md', 'runs.csv'])
  for name in PICTURES:
    assert (written / name).read_bytes().startswith(b'\x89PNG')


def test_the_page_is_one_file(written):
  text = (written / 'report.html').read_text(encoding='utf-8')
  assert text.count('src="data:image/png;base64,') == len(PICTURES)
  assert text.count('src=') == len(PICTURES)
  assert not re.search(r'href|https?://|<script|<link|@import|url\(', text)
  assert '<title>Noise &lt;b&gt; &amp; more</title>' in text
  assert 'error: a | b &lt;i&gt;' in text
  assert text.count('<tr>') == text.count('</tr>') > 10


def _csv(path):
  with open(str(path), encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))


def test_groups_in_csv(written):
  rows = {(row['noise_level'], row['method']): row
          for row in _csv(written / 'report.csv')}
  assert len(rows) == 3
  row = rows['0.4', 'mentormix']
  assert (row['runs'], row['left_out']) == ('3', '1')  # The broken one.
  assert (row['last_mean'], row['last_deviation']) == ('80.0000', '10.0000')
  assert (row['peak_mean'], row['peak_deviation']) == ('95.0000', '0.0000')
  assert row['stopped_early_mean'] == ''  # Nothing was held out.
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
          for row in _csv(written / 'runs.csv')}
  assert len(rows) == 8
  assert rows['mix1']['state'] == 'finished'
  assert rows['mix1']['last'] == '80.0000'
  assert rows['mix1']['seed'] == '1' and rows['mix1']['mixup_alpha'] == '8.0'
  assert rows['stopped']['state'] == 'unfinished'
  assert rows['stopped']['last'] == ''
  assert rows['broken']['message'] == 'x.py: error: a | b <i>'


@pytest.mark.parametrize('name,cell', [
    ('report.md', '| **80\\*** | 1 \\| 2 |'),
    ('report.html',
     '<td class="text best">80*</td>\n<td class="number">1 | 2')])
def test_marked_cells(name, cell):
  block = blocks.Block(header=['a', 'b'], rows=[[blocks.Best('80*'), '1 | 2']])
  text = rendering.render(name, 'T', [blocks.Block(subheading='<S>'), block],
                          '.')
  assert cell in text
  assert {'report.md': '### \\<S\\>', 'report.html': '<h3>&lt;S&gt;</h3>'}[
      name] in text
