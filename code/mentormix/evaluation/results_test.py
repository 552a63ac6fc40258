"""results.csv: it reads back as written; other files are refused."""
import math
import os
import typing

import pytest

from mentormix.evaluation import results
from mentormix.messages import UserError

HEADER = 'step,top1,top5,loss,count,wall_time\n'
ROWS = [results.Result(5, 0.5, 0.75, 1.25, 40, 1000.5),
        results.Result(9, 0.25, 1.0, 0.5, 40, 2000.0)]


@pytest.mark.parametrize('text', [
    'a,b\n1,2\n', 'junk', ',' * 5000, 'step,top1\n1,1\n',
    HEADER[:-1] + ',more\n1,1,1,1,1,1,1\n'] + [HEADER + row for row in (
        'x,1,1,1,1,1\n', '1,1,1,1,1.5,1\n', '1,1,1,1,1\n')])
def test_results_file_of_something_else(tmp_path, text):
  path = tmp_path / 'results.csv'
  path.write_text(text)
  with pytest.raises(UserError, match='results.csv is not a results file') as e:
    results.read(str(path))
  assert len(str(e.value)) < 600
  assert '--' not in str(e.value)  # Several commands read such files.


def test_files_from_before_a_column_was_added(tmp_path, monkeypatch):
  """As the comment at the top of results.py says."""
  path = str(tmp_path / 'results.csv')
  results.write(path, ROWS)
  fields = list(typing.get_type_hints(results.Result).items())
  longer = typing.NamedTuple('Result', fields + [('top3', float)])
  longer.__new__.__defaults__ = (math.nan, math.nan, -1.0)
  longer._field_defaults = {'top1_recomputed': math.nan,
                            'top1_flipped': math.nan, 'top3': -1.0}
  monkeypatch.setattr(results, 'Result', longer)
  rows = results.read(path)
  assert rows == [row + (-1.0,) for row in ROWS]
  rows[1] = rows[1]._replace(top3=0.5)
  results.write(path, rows)
  assert results.read(path) == rows
  assert (tmp_path / 'results.csv').read_text() == (
      HEADER[:-1] + ',top3\n5,0.500000,0.750000,1.250000,40,1000.5,-1.000000\n'
      '9,0.250000,1.000000,0.500000,40,2000.0,0.500000\n')


def test_recomputed_statistics_are_a_column_where_they_are_known(tmp_path):
  path = str(tmp_path / 'results.csv')
  rows = [ROWS[0], ROWS[1]._replace(top1_recomputed=0.375)]
  results.write(path, rows)
  assert results.read(path)[1] == rows[1]
  assert (tmp_path / 'results.csv').read_text() == (
      HEADER[:-1] + ',top1_recomputed\n5,0.500000,0.750000,1.250000,40,1000.5,'
      'nan\n9,0.250000,1.000000,0.500000,40,2000.0,0.375000\n')
  assert '25.00% (37.50% with recomputed statistics)' in str(rows[1])


def test_a_figure_that_was_not_asked_for_is_no_column(tmp_path):
  path = str(tmp_path / 'results.csv')
  rows = [ROWS[0]._replace(top1_flipped=0.625)]
  results.write(path, rows)
  assert (tmp_path / 'results.csv').read_text() == (
      HEADER[:-1] + ',top1_flipped\n5,0.500000,0.750000,1.250000,40,1000.5,'
      '0.625000\n')
  assert math.isnan(results.read(path)[0].top1_recomputed)
  assert '50.00% (62.50% with mirror images)' in str(rows[0])


def test_results_read_back(tmp_path):
  path = str(tmp_path / 'results.csv')
  assert results.read(path) == []
  for count in (1, 2):
    results.write(path, ROWS[:count])
    assert results.read(path) == ROWS[:count]
  assert os.listdir(str(tmp_path)) == ['results.csv']


@pytest.mark.parametrize('started,own', [
    (0, ROWS), (1000, ROWS), (1500, ROWS[1:]), (3000, [])])
def test_rows_of_an_earlier_run_are_moved_away(tmp_path, started, own):
  path = str(tmp_path / 'results.csv')
  assert results.of_run(path, started) == ([], None)
  results.write(path, ROWS)
  found, moved = results.of_run(path, started)
  assert found == own
  assert results.read(path) == own
  if own == ROWS:
    assert moved is None
  else:
    assert moved == str(tmp_path / 'results-before-') + {
        1500: '19700101-002500', 3000: '19700101-005000'}[started] + '.csv'
    assert results.read(moved) == ROWS[:2 - len(own)]
  assert results.of_run(path, started) == (own, None)


def test_rows_that_are_moved_later_join_the_others(tmp_path):
  path = str(tmp_path / 'results.csv')
  for row in ROWS:
    results.write(path, [row])
    found, moved = results.of_run(path, 3000)
    assert not found
  assert results.read(moved) == ROWS
