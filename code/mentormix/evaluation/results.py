"""What evaluation finds out, and the file that it is kept in: results.csv.

Evaluation adds a row per checkpoint; reports read them. No TensorFlow here.
"""
import collections
import csv
import os
import re
import time

from mentormix import files
from mentormix.messages import UserError

FILE = 'results.csv'
_MAX_BYTES = 16 << 20
_MAX_DIGITS = 18
_END_OF_TIME = 253402300800  # The year 10000, where calendars end.


class Result(collections.namedtuple(
    'Result', 'step top1 top5 loss count wall_time')):
  """One pass over the split; a row of results.csv.

  Attributes:
    step: global step of the checkpoint.
    top1, top5: share of the images whose label is the first, or among the
      first five, in [0, 1].
    loss: mean cross-entropy.
    count: number of images.
    wall_time: seconds since 1970 when the pass ended.
  """
  __slots__ = ()

  def __str__(self):
    return 'step %d: top-1 %.2f%%  top-5 %.2f%%  loss %.4f  (%d images)' % (
        self.step, 100 * self.top1, 100 * self.top5, self.loss, self.count)


def read(path):
  """The `Result`s in a results.csv, in its order; [] where there is none.

  Raises:
    UserError: the file holds something else.
  """
  if not os.path.isfile(path) or not os.path.getsize(path):
    return []
  try:
    if os.path.getsize(path) > _MAX_BYTES:
      raise ValueError('it has more than %d MiB' % (_MAX_BYTES >> 20))
    with open(path, newline='') as f:
      rows = csv.DictReader(f)
      if tuple(rows.fieldnames) != Result._fields:
        raise ValueError('columns %.200s' % rows.fieldnames)
      results = [
          Result(_count(row['step']), float(row['top1']), float(row['top5']),
                 float(row['loss']), _count(row['count']),
                 float(row['wall_time'])) for row in rows]
      for result in results:
        if not (0 <= result.top1 <= 1 and 0 <= result.top5 <= 1):
          raise ValueError('accuracy %g at step %d' % (result.top1,
                                                       result.step))
        if not 0 <= result.wall_time < _END_OF_TIME:
          raise ValueError('time %g at step %d' % (result.wall_time,
                                                   result.step))
      return results
  except (ValueError, TypeError, OSError, csv.Error) as error:
    raise UserError('%s is not a results file of this program (%s); move it '
                    'away, or name another with --output_csv_file'
                    % (path, error))


def _count(text):
  """A whole number from 0; one of thousands of digits would take hours."""
  if not re.match(r'[0-9]{1,%d}$' % _MAX_DIGITS, text):
    raise ValueError('%.40r is no count' % text)
  return int(text)


def write(path, results):
  """Writes a results.csv, whole or not at all.

  Args:
    path: of the file, there or not.
    results: the `Result`s of its rows.
  """
  with files.replaced(path) as f:
    rows = csv.writer(f, lineterminator='\n')
    rows.writerow(Result._fields)
    for result in results:
      rows.writerow([result.step, '%.6f' % result.top1, '%.6f' % result.top5,
                     '%.6f' % result.loss, result.count,
                     '%.1f' % result.wall_time])


def of_run(path, started):
  """The `Result`s of one run; what an earlier run left is moved away.

  Args:
    path: of a results.csv, there or not.
    started: when the run was, in seconds since 1970; 0 if that is not known.

  Returns:
    (results, moved): the rows from then on; and the path of the file that has
    those from before, None where there are none.
  """
  own, before = [], []
  for result in read(path):
    (own if result.wall_time >= started else before).append(result)
  if not before:
    return own, None
  root, ending = os.path.splitext(path)
  moved = '%s-before-%s%s' % (
      root, time.strftime('%Y%m%d-%H%M%S', time.gmtime(started)), ending)
  there = read(moved)
  write(moved, there + [result for result in before if result not in there])
  write(path, own)
  return own, moved
