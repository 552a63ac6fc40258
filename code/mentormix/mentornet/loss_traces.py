"""Loss traces: the loss of each example while a student trained, as CSV.

    sample_id,epoch_percent,noisy_label,clean_label,loss
    1042,17,3,3,0.412873

Training writes them. A data-driven MentorNet learns from them which labels are
right: v* = 1 where noisy_label is clean_label, else 0 (MentorNet paper, section
3.3; published code). NumPy only. N is the number of rows.
"""
import csv
import os
import typing

import numpy as np

from mentormix import file_kinds
from mentormix.messages import UserError

MAX_ROWS = 1000000  # About as many as a whole training writes.
_MIN_SAMPLES = 10
_MAX_LOSS = float(np.finfo(np.float32).max)
_SPLIT = 1  # The stream of a seed that chooses what is held out.


class Traces(typing.NamedTuple):
  """Rows of a trace; the fields are the columns of the file."""
  sample_id: np.ndarray  # [N] str: which example; empty where not known.
  epoch_percent: np.ndarray  # int64 [N]: how far training was, 0 to 99.
  noisy_label: np.ndarray  # int64 [N]: the label it was trained with.
  clean_label: np.ndarray  # int64 [N]: the true one.
  loss: np.ndarray  # float64 [N]: cross-entropy of the noisy label.

  def v_star(self):
    """float32 [N]: 1 where the label is right, else 0."""
    return (self.noisy_label == self.clean_label).astype(np.float32)


_HEADER = (','.join(Traces._fields) + '\n').encode('ascii')


class Writer:
  """Collects rows and appends them to the file on request."""

  def __init__(self, path, resume):
    """Creates a Writer and the file.

    Args:
      path: of the file.
      resume: whether the file may exist, because the run is resumed. An
        incomplete last row is removed.

    Raises:
      UserError: the file exists already, or cannot be written.
    """
    self._path = path
    self._rows = []
    # A start that failed may have left a file without rows.
    there = os.path.lexists(path) and (resume or (
        os.path.isfile(path) and os.path.getsize(path) <= len(_HEADER)))
    try:
      with open(path, 'rb+' if there else 'xb') as f:
        text = f.read() if there else b''
        if text.startswith(_HEADER):
          f.truncate(text.rfind(b'\n') + 1)
        elif _HEADER.startswith(text):
          f.seek(0)
          f.write(_HEADER)
        else:
          raise UserError(f'--loss_csv_file={path} does not hold losses; name '
                          'another file')
    except FileExistsError:
      raise UserError(f'--loss_csv_file={path} already exists; name another '
                      'file, or remove it')
    except OSError as error:
      raise UserError(f'--loss_csv_file={path} cannot be written: '
                      f'{error.strerror}')

  def add(self, sample_ids, epoch_percent, noisy_labels, clean_labels, losses):
    """Takes a batch: arrays [B], and its epoch percentage."""
    for sample_id, noisy, clean, loss in zip(
        sample_ids, noisy_labels, clean_labels, losses):
      self._rows.append((sample_id.decode('utf-8'), epoch_percent, noisy, clean,
                         f'{loss:.6g}'))

  def cut(self, size):
    """Drops the rows that are not written, and those beyond `size` bytes.

    Raises:
      UserError: the file is shorter, so rows of the run are gone.
    """
    self._rows = []
    if size > os.path.getsize(self._path):
      raise UserError(
          f'--loss_csv_file={self._path} has {os.path.getsize(self._path)} '
          f'bytes, but the run had written {size}; restore it, or name another '
          '--train_log_dir')
    os.truncate(self._path, size)

  def flush(self):
    """Writes the new rows; returns the size of the file in bytes."""
    with open(self._path, 'a', newline='', encoding='utf-8') as f:
      csv.writer(f, lineterminator='\n').writerows(self._rows)
      f.flush()
      os.fsync(f.fileno())
    self._rows = []
    return os.path.getsize(self._path)


def read(path):
  """Reads the `Traces` in a file. Other columns are ignored.

  Raises:
    UserError: a column is missing, a row is not valid, or all labels are right,
      or all wrong; the line names the file and the place.
  """
  rows = []
  try:
    with open(path, newline='', encoding='utf-8-sig') as f:
      reader = csv.DictReader(f)
      if not set(Traces._fields) <= set(reader.fieldnames or ()):
        raise UserError(f'{path} does not have the columns '
                        f'{",".join(Traces._fields)}{file_kinds.explain(path)}')
      for row in reader:
        try:
          rows.append(_parse(row))
        except (TypeError, ValueError):
          raise UserError(
              f'{path}: line {reader.line_num} is not valid: epoch_percent '
              'must be a number from 0 to 100, labels whole numbers from 0, '
              'the loss a number from 0')
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}')
  except (ValueError, csv.Error) as error:
    raise UserError(f'{path} is not a CSV file{file_kinds.explain(path)}: '
                    f'{error}')
  if not rows:
    raise UserError(f'{path} holds no rows')
  sample_id, *numbers = zip(*rows)
  # Objects, because one long cell would widen a whole array of text.
  traces = Traces(np.array(sample_id, object), *map(np.array, numbers))
  if traces.v_star().mean() in (0, 1):
    raise UserError(f'{path} needs rows with a right label and rows with a '
                    'wrong label; nothing can be learned from it')
  samples = len(set(traces.sample_id))
  if 1 < samples < _MIN_SAMPLES:
    raise UserError(f'{path} holds {samples} different values of sample_id; at '
                    f'least {_MIN_SAMPLES} are needed')
  return traces


def _parse(row):
  """The fields of `Traces` for a row; an exception if one is not valid."""
  percent, noisy, clean, loss = (
      float(row[name]) for name in Traces._fields[1:])
  if (None in row or None in row.values()  # More cells than columns, or less.
      or not 0 <= percent <= 100 or not 0 <= loss <= _MAX_LOSS
      or not all(0 <= label < 2 ** 31 and label.is_integer()
                 for label in (noisy, clean))):
    raise ValueError
  return row['sample_id'], min(int(percent), 99), int(noisy), int(clean), loss


def nearest_rank(count, share):
  """Rank below which a share of numbers is, counted from the top; an int.

  Ranks are rounded half to even (published code). Counted from the bottom, ties
  would round the other way.

  Args:
    count: how many numbers there are.
    share: float64, 0 to 1.

  Returns:
    From 0, the largest number, to count - 1.
  """
  return int(np.round((count - 1) * (1 - share)))


def rank_from_top(count, p):
  """Rank of a percentile of losses, counted from the top (published code).

  The published code looks `p` up as float32, multiplies it by 100 in float32
  and divides it by 100 in float64. When a session runs a step, TensorFlow's
  graph optimizer makes a product of this division. The difference decides ties:
  of 16 losses, 0.7 is the rank 4.

  Args:
    count: how many losses there are.
    p: which percentile, 0 to 1.

  Returns:
    As `nearest_rank`.
  """
  percent = np.float64(np.float32(p) * np.float32(100))
  return nearest_rank(count, percent * (1 / 100))


def percentile(losses, p):
  """The percentile of losses [N] by `rank_from_top`; `p` is from 0 to 1."""
  return np.sort(losses)[len(losses) - 1 - rank_from_top(len(losses), p)]


def training_set(traces, loss_p_percentiles, held_out=0.2, seed=0):
  """Points with their v*, in the form of `curriculum.training_set`.

  The difference of a row is its loss minus a percentile of the losses at the
  same epoch percentage. The moving average of training follows that percentile.

  Args:
    traces: the `Traces`.
    loss_p_percentiles: percentiles, 0 to 1; a row gives a point for each.
    held_out: share of the examples, not of the rows, that is held out.
    seed: chooses them.

  Returns:
    (features [M, 4], v_star [M]) to learn from, and the same to test on, all
    float32.

  Raises:
    UserError: there are too few examples for right and wrong labels in both.
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
  if len(np.unique(ids)) == 1:  # Not known: each row is an example.
    ids = np.arange(len(ids))
  known, group = np.unique(ids, return_inverse=True)
  # Not the seed itself: if it also chose the wrong labels, all held-out labels
  # would be wrong.
  random = np.random.RandomState([seed, _SPLIT])
  tested = random.permutation(len(known))[
      :max(1, int(round(len(known) * held_out)))]
  tested = np.isin(group, tested)
  v_star = np.broadcast_to(traces.v_star(), features.shape[:2])
  parts = tuple((features[:, which].reshape(-1, 4), v_star[:, which].ravel())
                for which in (~tested, tested))
  if any(len(np.unique(wanted)) < 2 for _, wanted in parts):
    raise UserError(f'too few of the {len(known)} examples have a right label, '
                    'or too few have a wrong one, to hold some out')
  return parts
