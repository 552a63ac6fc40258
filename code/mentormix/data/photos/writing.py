"""Rows -> shards of records, by several processes, in an unfinished directory.

    .<name>.unfinished/asked.json         what the directory is made of
    .<name>.unfinished/shard-00000        a finished shard, a TFRecord file
    .<name>.unfinished/shard-00000.json   what became of its rows

A run that was killed and is started again keeps the shards that are finished.
Each process reads, checks and writes one shard at a time.
"""
import concurrent.futures
from concurrent.futures import process
import json
import multiprocessing
import os
import shutil
import threading
import time
import typing

import numpy as np

from mentormix import files
from mentormix import progress
from mentormix.data.photos import pictures
from mentormix.data.photos import rows as rows_lib
from mentormix.messages import log, RunError

ASKED_FILE = 'asked.json'
_PER_SHARD = 2000  # Photographs, if the number of shards is not asked for.
_FEWEST_SHARDS = 10
_ORDER_STREAM = 2  # Of random numbers.


class _Task(typing.NamedTuple):
  """A shard to write."""
  path: str
  rows: typing.List[rows_lib.Row]
  indices: typing.List[int]  # Of the rows in their split.
  max_side: typing.Optional[int]


class Shard(typing.NamedTuple):
  """A finished shard."""
  path: str
  num_records: int
  num_new: int  # Encoded again.
  damaged: list  # Pairs (index of a row, why it is not in the shard).
  sha256: str


def num_shards(count, asked):
  """How many shards `count` rows make; `asked` is None or a number."""
  return asked or min(count, max(_FEWEST_SHARDS, -(-count // _PER_SHARD)))


def write(directory, split, asked, shards, seed, max_side, num_workers):
  """Writes the shards of a split that are not finished.

  Args:
    directory: where they go; it is made.
    split: a `sources.Split`.
    asked: a dict; shards that were made for another one are removed.
    shards: how many, at most one for each row.
    seed: of the order of a training split; a test split keeps its order.
    max_side: as of `pictures.convert`.
    num_workers: processes.

  Returns:
    A list of `Shard`s.

  Raises:
    RunError: a process ended or cannot write.
  """
  count = len(split.rows)
  order = np.arange(count)
  if split.split == 'train':
    order = np.random.RandomState([seed, _ORDER_STREAM]).permutation(count)
  with files.only_writer(_make(directory, asked), 'output_dir'):
    finished, tasks = [], []  # `tasks` without rows: these are made when due.
    for shard, indices in enumerate(np.array_split(order, shards)):
      path = os.path.join(directory, f'shard-{shard:05d}')
      done = _finished(path)
      if done:
        finished.append(done)
      else:
        tasks.append((path, indices))
    if finished:
      log(f'{directory}: {len(finished)} of {shards} files are finished and '
          'kept')
    done = count - sum(len(indices) for _, indices in tasks)
    shown = progress.Progress(done, count, 'image')
    for shard in _run((_task(split.rows, path, indices, max_side)
                       for path, indices in tasks), len(tasks), num_workers):
      finished.append(shard)
      done += shard.num_records + len(shard.damaged)
      if shown.is_due():
        shown.show(done, damaged=str(sum(len(s.damaged) for s in finished)))
    shown.close()
  return sorted(finished)


def _make(directory, asked):
  """Makes the directory, or keeps it if it was made for the same."""
  path = os.path.join(directory, ASKED_FILE)
  # As it is read back: keys and lists of JSON.
  if files.read_object(path, 'settings') != json.loads(json.dumps(asked)):
    if os.path.isdir(directory):
      with files.only_writer(directory, 'output_dir'):
        shutil.rmtree(directory)
    os.makedirs(directory)
    files.write_json(path, asked)
  return directory


def _finished(path):
  """The `Shard` at `path`; None if it is not finished."""
  done = files.read_object(path + '.json', 'the facts of a shard')
  if done and os.path.isfile(path) and files.sha256_of(path) == done['sha256']:
    return Shard(path, **done)
  return None


def _task(rows, path, indices, max_side):
  indices = [int(index) for index in indices]
  return _Task(path, [rows[index] for index in indices], indices, max_side)


def _run(tasks, count, num_workers):
  """Yields the `Shard` of each of `count` tasks, as they are finished."""
  if min(num_workers, count) <= 1:
    yield from map(_write_shard, tasks)
    return
  with concurrent.futures.ProcessPoolExecutor(
      min(num_workers, count), multiprocessing.get_context('spawn'),
      _start_worker, (os.getpid(),)) as pool:
    try:
      pending = set()
      for task in tasks:
        pending.add(pool.submit(_write_shard, task))
        while len(pending) > num_workers + 1:  # The rows of few are in memory.
          done, pending = concurrent.futures.wait(
              pending, return_when=concurrent.futures.FIRST_COMPLETED)
          yield from (future.result() for future in done)
      for future in concurrent.futures.as_completed(pending):
        yield future.result()
    except process.BrokenProcessPool:
      raise RunError('a process that writes files has ended, perhaps for lack '
                     'of memory; run the same command again, with fewer '
                     '--num_workers; finished files are kept')
    except BaseException:
      # Not those in the middle of a shard: that can take long.
      for child in multiprocessing.active_children():
        child.terminate()
      raise


def _start_worker(parent):
  """Prepares a process that writes: signals go to its parent only."""
  import signal
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

  def watch():
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)  # A parent that was killed leaves nobody to write for.

  threading.Thread(target=watch, daemon=True).start()


def _write_shard(task):
  """Writes a shard and its facts; in a process of its own if there are several.

  Raises:
    RunError: the file cannot be written.
  """
  # TensorFlow takes seconds to load; bad input is reported before that.
  from mentormix import runtime
  from mentormix.data import datasets
  tf, temporary = runtime.tf, task.path + '.tmp'
  num_new, damaged = 0, []
  try:
    with tf.python_io.TFRecordWriter(temporary) as writer:
      for index, row in zip(task.indices, task.rows):
        try:
          picture = pictures.convert(rows_lib.contents(row.path), task.max_side)
        except (OSError, ValueError) as error:
          damaged.append((index, str(error)))
          continue
        num_new += picture.is_new
        writer.write(datasets.encode_example(
            picture.jpeg, row.label, row.clean, source_id=row.id,
            image_format=b'jpeg'))
    facts = dict(num_records=len(task.rows) - len(damaged), num_new=num_new,
                 damaged=damaged, sha256=files.sha256_of(temporary))
    os.replace(temporary, task.path)
    files.write_json(task.path + '.json', facts)
  except (OSError, tf.errors.OpError) as error:
    reason = (runtime.reason(error) if isinstance(error, tf.errors.OpError)
              else str(error))
    raise RunError(f'cannot write {task.path} ({reason}); fix that, then run '
                   'the same command again: finished files are kept')
  return Shard(task.path, **facts)
