"""The results of evaluation, and results.csv, the file that keeps them.

This module does not need TensorFlow. To add a column to results.csv, add a
field at the end of `Result`, with a default for rows that were written before,
and compute it in loop.py. A float gets six decimals, unless `_FORMATS` says
otherwise.
"""
import csv
import math
import os
import time
import typing

from mentormix import files
from mentormix.messages import UserError

FILE = 'results.csv'
FACTS_FILE = 'data.json'  # Beside it: the noise.json of the data it is about.
OPTIONAL = ('top1_recomputed', 'top1_flipped')
_FORMATS = {'wall_time': '.1f'}


class Result(typing.NamedTuple):
  """The result of one checkpoint: a row of results.csv."""
  step: int  # Global step of the checkpoint.
  top1: float  # Share of images whose label is the first class, 0 to 1.
  top5: float  # Share of images whose label is among the first five classes.
  loss: float  # Mean cross-entropy.
  count: int  # Number of images.
  wall_time: float  # Seconds since 1970 when the pass over the images ended.
  # top1 with --statistics=recomputed; NaN, and no column, without.
  top1_recomputed: float = math.nan
  # With --test_time_flip: top1 of the mean logits of image and mirror image, in
  # the last pass over the images; else as above.
  top1_flipped: float = math.nan

  def __str__(self):
    again = ('' if math.isnan(self.top1_recomputed) else
             f' ({100 * self.top1_recomputed:.2f}% with recomputed statistics)')
    if not math.isnan(self.top1_flipped):
      again += f' ({100 * self.top1_flipped:.2f}% with mirror images)'
    return (f'step {self.step}: top-1 {100 * self.top1:.2f}%{again}  '
            f'top-5 {100 * self.top5:.2f}%  loss {self.loss:.4f}  '
            f'({self.count} images)')


def read(path):
  """The `Result`s in a results.csv, in its order; [] if there is none.

  Raises:
    UserError: the file is not a results.csv.
  """
  if not os.path.isfile(path) or not os.path.getsize(path):
    return []
  try:
    with open(path, newline='') as f:
      reader = csv.DictReader(f)
      required = set(Result._fields) - set(Result._field_defaults)
      if not required <= set(reader.fieldnames):
        raise ValueError(f'columns {",".join(reader.fieldnames):.200}')
      types = typing.get_type_hints(Result)
      return [Result(**{name: types[name](value)
                        for name, value in row.items()}) for row in reader]
  except (ValueError, TypeError, KeyError, OSError, csv.Error) as error:
    raise UserError(f'{path} is not a results file of this program ({error}); '
                    'move it away')


def write(path, results):
  """Writes a results.csv atomically.

  Args:
    path: of the file, which may exist.
    results: the `Result`s of its rows.
  """
  names = [name for name in Result._fields if name not in OPTIONAL or not all(
      math.isnan(getattr(result, name)) for result in results)]
  with files.replaced(path) as f:
    writer = csv.writer(f, lineterminator='\n')
    writer.writerow(names)
    for result in results:
      values = [(name, getattr(result, name)) for name in names]
      writer.writerow([
          format(value, _FORMATS.get(name, '.6f'))
          if isinstance(value, float) else value for name, value in values])


def of_run(path, started):
  """The `Result`s of one run; moves those of an earlier run away.

  Args:
    path: of a results.csv, which may be missing.
    started: when the run started, in seconds since 1970; 0 if unknown.

  Returns:
    (results, moved): the rows since then; and the path of the file that the
    earlier rows are in now, None if there were none.
  """
  rows = read(path)
  results = [row for row in rows if row.wall_time >= started]
  if len(results) == len(rows):
    return results, None
  root, ending = os.path.splitext(path)
  date = time.strftime('%Y%m%d-%H%M%S', time.gmtime(started))
  moved = f'{root}-before-{date}{ending}'
  there = read(moved)
  write(moved, there + [row for row in rows
                        if row.wall_time < started and row not in there])
  write(path, results)
  return results, moved
