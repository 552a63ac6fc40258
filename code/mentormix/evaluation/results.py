"""The results of evaluation and the file that holds them, results.csv.

Evaluation adds a row per checkpoint; reports read them. No TensorFlow here.
"""
import csv
import os
import re
import time
import typing

from mentormix import files
from mentormix.messages import UserError

FILE = 'results.csv'
_MAX_BYTES = 16 << 20
_MAX_DIGITS = 18
_END_OF_TIME = 253402300800  # The year 10000, where calendars end.


class Result(typing.NamedTuple):
  """One pass over the split; a row of results.csv."""
  step: int  # Global step of the checkpoint.
  top1: float  # Share of the images whose label is ranked first, in [0, 1].
  top5: float  # Share of those whose label is among the first five.
  loss: float  # Mean cross-entropy.
  count: int  # Number of images.
  wall_time: float  # Seconds since 1970 when the pass ended.

  def __str__(self):
    return (f'step {self.step}: top-1 {100 * self.top1:.2f}%  '
            f'top-5 {100 * self.top5:.2f}%  loss {self.loss:.4f}  '
            f'({self.count} images)')


def read(path):
  """The `Result`s in a results.csv, in its order; [] where there is none.

  Raises:
    UserError: the file holds something else.
  """
  if not os.path.isfile(path) or not os.path.getsize(path):
    return []
  try:
    if os.path.getsize(path) > _MAX_BYTES:
      raise ValueError(f'it has more than {_MAX_BYTES >> 20} MiB')
    with open(path, newline='') as f:
      rows = csv.DictReader(f)
      if tuple(rows.fieldnames) != Result._fields:
        raise ValueError(f'columns {str(rows.fieldnames):.200}')
      results = [
          Result(_count(row['step']), float(row['top1']), float(row['top5']),
                 float(row['loss']), _count(row['count']),
                 float(row['wall_time'])) for row in rows]
      for result in results:
        if not (0 <= result.top1 <= 1 and 0 <= result.top5 <= 1):
          raise ValueError(f'accuracy {result.top1:g} at step {result.step}')
        if not 0 <= result.wall_time < _END_OF_TIME:
          raise ValueError(f'time {result.wall_time:g} at step {result.step}')
      return results
  except (ValueError, TypeError, OSError, csv.Error) as error:
    raise UserError(f'{path} is not a results file of this program ({error}); '
                    'move it away, or name another with --output_csv_file')


def _count(text):
  """A whole number from 0; parsing thousands of digits would take hours."""
  if not re.match(rf'[0-9]{{1,{_MAX_DIGITS}}}$', text):
    raise ValueError(f'{repr(text):.40} is not a count')
  return int(text)


def write(path, results):
  """Writes a results.csv atomically.

  Args:
    path: of the file, there or not.
    results: the `Result`s of its rows.
  """
  with files.replaced(path) as f:
    rows = csv.writer(f, lineterminator='\n')
    rows.writerow(Result._fields)
    for result in results:
      rows.writerow([result.step, f'{result.top1:.6f}', f'{result.top5:.6f}',
                     f'{result.loss:.6f}', result.count,
                     f'{result.wall_time:.1f}'])


def of_run(path, started):
  """The `Result`s of one run; moves the rows of an earlier run away.

  Args:
    path: of a results.csv, there or not.
    started: when the run started, in seconds since 1970; 0 if unknown.

  Returns:
    (results, moved): the rows since then, and the path of the file with the
    rows from before, None if there are none.
  """
  own, before = [], []
  for result in read(path):
    (own if result.wall_time >= started else before).append(result)
  if not before:
    return own, None
  root, ending = os.path.splitext(path)
  when = time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))
  moved = f'{root}-before-{when}{ending}'
  there = read(moved)
  write(moved, there + [result for result in before if result not in there])
  write(path, own)
  return own, moved
