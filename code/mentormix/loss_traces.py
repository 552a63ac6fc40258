"""Loss traces: the loss of each example while a student trained, as CSV.

    sample_id,epoch_percent,noisy_label,clean_label,loss
    1042,17,3,3,0.412873

Training writes them; a data-driven MentorNet learns from them which labels are
right: v* = 1 where noisy_label is clean_label, else 0 (MentorNet paper, section
3.3; published code). NumPy only. N is the number of rows.
"""
import collections
import csv
import os

import numpy as np

from mentormix.command import UserError

MAX_ROWS = 1000000  # About what a whole training writes.
_MAX_BYTES = 256 << 20
_MIN_SAMPLES = 10
_SPLIT = 1  # Which stream of a seed chooses what is held out.


class Traces(collections.namedtuple(
    'Traces', 'sample_id epoch_percent noisy_label clean_label loss')):
  """Rows of a trace; the fields are the columns of the file.

  Attributes:
    sample_id: [N] str, which example it is; empty where not known.
    epoch_percent: int64 [N], how far training was, 0 to 99.
    noisy_label: int64 [N], the label it was trained with.
    clean_label: int64 [N], the true one.
    loss: float64 [N], cross-entropy of the noisy label.
  """
  __slots__ = ()

  def v_star(self):
    """float32 [N]: 1 where the label is right, else 0."""
    return (self.noisy_label == self.clean_label).astype(np.float32)


_HEADER = (','.join(Traces._fields) + '\n').encode('ascii')


class Writer(object):
  """Collects rows; adds them to the file when told to."""

  def __init__(self, path, go_on):
    """Creates a Writer and the file.

    Args:
      path: of the file.
      go_on: whether the file may be there: that of a run that is resumed. A row
        that was cut off at its end goes.

    Raises:
      UserError: the file is there, or cannot be written.
    """
    self._path = path
    self._rows = []
    # A start that failed may have left it without rows.
    there = os.path.lexists(path) and (
        go_on or os.path.isfile(path) and os.path.getsize(path) <= len(_HEADER))
    try:
      with open(path, 'rb+' if there else 'xb') as f:
        text = f.read() if there else b''
        if text.startswith(_HEADER):
          f.truncate(text.rfind(b'\n') + 1)
        elif _HEADER.startswith(text):
          f.seek(0)
          f.write(_HEADER)
        else:
          raise UserError('--loss_csv_file=%s holds something else; name '
                          'another file' % path)
    except FileExistsError:
      raise UserError('--loss_csv_file=%s is there already; name another file, '
                      'or remove it' % path)
    except OSError as error:
      raise UserError('--loss_csv_file=%s cannot be written: %s'
                      % (path, error.strerror))

  def add(self, sample_ids, epoch_percent, noisy_labels, clean_labels, losses):
    """Takes a batch: arrays [B], but for the epoch percentage."""
    for sample_id, noisy, clean, loss in zip(
        sample_ids, noisy_labels, clean_labels, losses):
      self._rows.append((sample_id.decode('utf-8'), epoch_percent, noisy, clean,
                         '%.6g' % loss))

  def cut(self, size):
    """Forgets the rows that are not written, and those beyond `size` bytes."""
    self._rows = []
    if size < os.path.getsize(self._path):
      os.truncate(self._path, size)

  def flush(self):
    """Writes what was taken since the last time; the size, in bytes, then."""
    with open(self._path, 'a', newline='', encoding='utf-8') as f:
      csv.writer(f, lineterminator='\n').writerows(self._rows)
      f.flush()
      os.fsync(f.fileno())
    self._rows = []
    return os.path.getsize(self._path)


def read(path):
  """The `Traces` in a file.

  Other columns than those of `Traces` are passed over.

  Raises:
    UserError: a column is missing, a cell is no number or impossible, or all
      labels are right, or all wrong; the line names the file and the place.
  """
  try:
    if os.path.exists(path) and not os.path.isfile(path):  # A pipe would hang.
      raise UserError('%s cannot be read: it is not a file' % path)
    if os.path.getsize(path) > _MAX_BYTES:
      raise UserError('%s has more than %d MiB; take a part of its rows'
                      % (path, _MAX_BYTES >> 20))
    with open(path, newline='', encoding='utf-8-sig') as f:
      rows = csv.reader(f)
      columns = next(rows, [])
      missing = [name for name in Traces._fields if name not in columns]
      if missing:
        raise UserError('%s lacks the column%s %s; it needs %s' % (
            path, 's' * (len(missing) > 1), ', '.join(missing),
            ','.join(Traces._fields)))
      twice = [name for name in Traces._fields if columns.count(name) > 1]
      if twice:
        raise UserError('%s has the column %s twice' % (path, twice[0]))
      places = [columns.index(name) for name in Traces._fields]
      cells = []
      for row in rows:
        if row and len(row) != len(columns):
          raise UserError('%s: line %d has %d cells instead of %d' % (
              path, rows.line_num, len(row), len(columns)))
        if row:
          cells.append([row[place] for place in places])
  except OSError as error:
    raise UserError('%s cannot be read: %s' % (path, error.strerror))
  except (ValueError, csv.Error) as error:
    raise UserError('%s is no CSV file: %s' % (path, error))
  if not cells:
    raise UserError('%s holds no rows' % path)
  ids, percent, noisy, clean, loss = zip(*cells)
  number = lambda k, column, check, what: _numbers(
      path, Traces._fields[k], column, check, what)
  percent = number(1, percent, lambda x: (x >= 0) & (x <= 100),
                   'a number from 0 to 100')
  label = lambda x: (x >= 0) & (x == np.floor(x)) & (x < 2 ** 31)
  traces = Traces(
      # Objects: in an array of text, one long cell would widen them all.
      np.array(ids, object), np.minimum(percent, 99).astype(np.int64),
      number(2, noisy, label, 'a whole number from 0').astype(np.int64),
      number(3, clean, label, 'a whole number from 0').astype(np.int64),
      number(4, loss, lambda x: (x >= 0) & (x <= np.finfo(np.float32).max),
             'a number from 0'))
  share = traces.v_star().mean()
  if share in (0, 1):
    raise UserError('%s holds no row with a %s label; nothing can be learned '
                    'from it' % (path, 'wrong' if share else 'right'))
  samples = len(set(ids))
  if samples < _MIN_SAMPLES and samples > 1:
    raise UserError('%s holds %d different values of sample_id; at least %d '
                    'are needed' % (path, samples, _MIN_SAMPLES))
  return traces


def _numbers(path, name, cells, check, what):
  """A column as float64 [N]."""
  values = np.array([_number(cell) for cell in cells])
  with np.errstate(invalid='ignore'):
    good = check(values)
  if not good.all():
    bad = int(np.argmin(good))
    raise UserError('%s: row %d: the %s %.40r is not %s'
                    % (path, bad + 1, name, cells[bad], what))
  return values


def _number(cell):
  """NaN, which no check lets pass, where it is none."""
  try:
    return float(cell)
  except ValueError:
    return np.nan


def percentile(losses, p):
  """By nearest rank, as `mentornet.percentile` has it; `p` is from 0 to 1."""
  from_top = int(np.round((len(losses) - 1) * (1 - p)))
  return np.sort(losses)[len(losses) - 1 - from_top]


def training_set(traces, loss_p_percentiles, held_out=0.2, seed=0):
  """Points with their v*, as `curriculum.training_set` has them.

  The difference of a row is its loss minus a percentile of the losses at the
  same epoch percentage, which is what the moving average of training follows.

  Args:
    traces: the `Traces`.
    loss_p_percentiles: which percentiles, 0 to 1; a row gives a point for each.
    held_out: share of the examples, not of the rows, that is held out.
    seed: of their choice.

  Returns:
    (features [M, 4], v_star [M]) to learn from and the same to test on, all
    float32.

  Raises:
    UserError: there are too few examples to have right and wrong labels in
      both.
  """
  features = np.zeros([len(loss_p_percentiles), len(traces.loss), 4],
                      np.float32)
  features[..., 0] = traces.loss
  features[..., 3] = traces.epoch_percent
  for percent in np.unique(traces.epoch_percent):
    rows = traces.epoch_percent == percent
    losses = traces.loss[rows]
    for k, p in enumerate(loss_p_percentiles):
      features[k, rows, 1] = losses - percentile(losses, p)
  ids = traces.sample_id
  if len(np.unique(ids)) == 1:  # Not known: each row for itself.
    ids = np.arange(len(ids))
  known, group = np.unique(ids, return_inverse=True)
  # Not the seed itself: where the labels were made wrong with the same one, all
  # that is held out would be wrong.
  random = np.random.RandomState([seed, _SPLIT])
  tested = random.permutation(len(known))[
      :max(1, int(round(len(known) * held_out)))]
  tested = np.isin(group, tested)
  v_star = np.broadcast_to(traces.v_star(), features.shape[:2])
  part = lambda which: (features[:, which].reshape(-1, 4),
                        v_star[:, which].reshape(-1))
  parts = part(~tested), part(tested)
  if any(len(np.unique(wanted)) < 2 for _, wanted in parts):
    raise UserError('of the %d examples of the losses too few have a right, or '
                    'a wrong, label to hold some out; more are needed'
                    % len(known))
  return parts
