"""Checks the TFRecords of a data set before anything uses them."""
import contextlib

from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import noise
from mentormix.messages import log, UserError
from mentormix.runtime import tf


def check_files(dataset, split, paths, max_bad_records=0):
  """Reads and checks every record once.

  A bad record is one that can be read and is not a valid example of the data
  set. It can be skipped. A file that is damaged, by its checksums or its size,
  is always an error: nothing after the damage can be read, so nobody knows how
  many records are lost.

  Args:
    dataset: a `Dataset`.
    split: 'train' or 'test'.
    paths: of the TFRecords of the split.
    max_bad_records: how many bad records may be skipped. Above 0, images are
      decoded, too, to find those which cannot be.

  Returns:
    (shards, count): a `Shard` for each path, and how many records they hold
    without the skipped ones.

  Raises:
    UserError: a file is damaged or empty, or there are more bad records than
      allowed; the line names the file and the record.
  """
  shards, lines, count = [], [], 0
  with (decoding.decoder(dataset, split) if max_bad_records
        else contextlib.nullcontext()) as run:
    for path in paths:
      first, skipped = 0, set()
      for chunk in decoding.chunks(datasets.read_records(path)):
        faults = [_fault(dataset, split, record) for _, record in chunk]
        rest = iter(decoding.undecodable(dataset, [
            record for (_, record), fault in zip(chunk, faults) if not fault
        ], run) if run else [])
        for index, fault in enumerate(faults):
          fault = fault or next(rest, None)
          if fault and not max_bad_records:
            raise decoding.bad_record(path, first + index, fault)
          if fault:
            skipped.add(chunk[index][0])
            lines.append(f'{path}: record {first + index} {fault}')
        first += len(chunk)
      if not first:
        raise UserError(f'{path} holds no record; make it again')
      count += first - len(skipped)
      shards.append(datasets.Shard(path, frozenset(skipped)))
  if lines:
    _report(lines, count, max_bad_records)
  return shards, count


def _report(lines, count, max_bad_records):
  """Logs a line for each bad record; raises UserError if they are too many."""
  for line in lines[:datasets.MOST_NAMED]:
    log(f'bad: {line}')
  if len(lines) > datasets.MOST_NAMED:
    log(f'bad: and {len(lines) - datasets.MOST_NAMED} more')
  total = count + len(lines)
  if len(lines) > max_bad_records or not count:
    raise UserError(
        f'{len(lines)} bad records of {total}, with --max_bad_records='
        f'{max_bad_records} for training and evaluation; make the files again, '
        f'or allow more there; the first: {lines[0]}')
  log(f'{len(lines)} bad records of {total} are skipped')


def _fault(dataset, split, record):
  """What is wrong with a record, or None; the image is not decoded."""
  try:
    feature = tf.train.Example.FromString(record).features.feature
  except Exception:  # protobuf has one exception class per implementation.
    return 'is not a tf.Example'
  label_key, name = dataset.label_key(split), dataset.name
  for key, kind, required in (
      (datasets.IMAGE, 'bytes_list', True), (label_key, 'int64_list', True),
      (datasets.CLEAN_LABEL, 'int64_list', False),
      (datasets.SOURCE_ID, 'bytes_list', False)):
    if ((required or key in feature)
        and len(getattr(feature[key], kind).value) != 1):
      return f'does not have exactly one {key}; it is not of data set {name}'
  for key, least in ((label_key, 0),
                     (datasets.CLEAN_LABEL, noise.WRONG_LABEL)):
    for label in feature[key].int64_list.value:
      if not least <= label < dataset.num_classes:
        return (f'has {key} {label}; {name} has classes 0 to '
                f'{dataset.num_classes - 1}')
  return None
