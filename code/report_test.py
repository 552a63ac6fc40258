"""The command line of report.py."""
import pytest
import report

from mentormix import testing
from mentormix.reports.testing import write_run


def test_nothing_finished_yet(tmp_path):
  write_run(tmp_path / 'runs' / 'a', max_number_of_steps=1000)
  (tmp_path / 'weights.png').write_text('of an earlier call')
  code, out, err = testing.run_command(report, *testing.to_flags(
      runs=tmp_path / 'runs', output_dir=tmp_path, title='Mine'))
  assert code == 0, err
  assert out == (f'{tmp_path / "report.html"}: 1 runs, 0 finished. Left out of '
                 'all figures: 1 unfinished.\n')
  assert not list(tmp_path.glob('*.png'))
  assert (tmp_path / 'report.csv').read_text() == ''
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert text.startswith('# Mine\n')
  assert 'No run has finished yet.' in text
  assert '| unfinished | 100 of 1,000 | – | – |' in text


@pytest.mark.parametrize('flags,message', [
    (['--output_dir=x'], '--runs=[]: must be given'),
    (['--runs=.'], '--output_dir=: must be given'),
    (['--runs=.', '--output_dir=x', '--last_k=0'], 'last_k=0'),
    (['--runs=/nowhere', '--output_dir=x'], '/nowhere is not a directory'),
    (['--runs=TMP/none', '--output_dir=x'], 'none holds no run'),
    (['--runs=TMP/bad', '--output_dir=x'], 'config.json cannot be read'),
    (['--runs=TMP/new', '--output_dir=x'], 'no run has results'),
    (['--runs=TMP/good', '--output_dir=/proc/x'], '--output_dir=/proc/x'),
    (['--rnus=TMP/good', '--output_dir=x'], 'Did you mean: runs'),
    (['--runs=.', '--output_dir=x', 'stray'], "unexpected argument 'stray'"),
])
def test_bad_input_is_one_line(tmp_path, flags, message):
  (tmp_path / 'none').mkdir()
  write_run(tmp_path / 'good')
  write_run(tmp_path / 'new', ())
  write_run(tmp_path / 'bad')
  (tmp_path / 'bad' / 'train' / 'config.json').write_text('{')
  finished = testing.run_command(
      report, *[flag.replace('TMP', str(tmp_path)) for flag in flags],
      cwd=tmp_path)
  testing.assert_one_line(finished, 2, message)
  assert not (tmp_path / 'x').exists()
