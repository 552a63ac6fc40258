"""results.csv: what is written reads back; what is not ours is refused."""
import pytest

from mentormix import results
from mentormix.command import UserError


@pytest.mark.parametrize('text', ['a,b\n1,2\n', 'step,top1,top5,loss,count,'
                                  'wall_time\nx,1,1,1,1,1\n', 'junk',
                                  'step,top1,top5,loss,count,wall_time\n'
                                  '1,nan,1,1,1,1\n',
                                  'step,top1,top5,loss,count,wall_time\n'
                                  '1,7.5,1,1,1,1\n'] + [
    'step,top1,top5,loss,count,wall_time\n%s,1,1,1,%s,%s\n' % row for row in (
        ('9' * 5000, '1', '1'), ('-1', '1', '1'), ('1', '1.5', '1'),
        ('1', '1', 'nan'), ('1', '1', '1e300'), ('1', '1', '-1'))])
def test_results_file_of_something_else(tmp_path, text):
  path = tmp_path / 'results.csv'
  path.write_text(text)
  with pytest.raises(UserError, match='results.csv is not a results file'):
    results.read(str(path))


def test_a_file_without_a_last_newline_goes_on(tmp_path):
  path = tmp_path / 'results.csv'
  rows = [results.Result(5, 0.5, 0.75, 1.25, 40, 1000.5),
          results.Result(9, 0.25, 1.0, 0.5, 40, 2000.0)]
  results.append(str(path), rows[0])
  path.write_text(path.read_text().rstrip())
  results.append(str(path), rows[1])
  assert results.read(str(path)) == rows


def test_results_read_back(tmp_path):
  path = str(tmp_path / 'results.csv')
  assert results.read(path) == []
  rows = [results.Result(5, 0.5, 0.75, 1.25, 40, 1000.5),
          results.Result(9, 0.25, 1.0, 0.5, 40, 2000.0)]
  for row in rows:
    results.append(path, row)
  assert results.read(path) == rows
