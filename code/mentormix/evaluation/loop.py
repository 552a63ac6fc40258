"""Evaluation: averaged weights, every image once, a row per checkpoint.

A process of its own: it shares nothing with training but the directory with the
checkpoints and config.json. It knows neither mentor nor loss.
"""
import contextlib
import os
import time

import numpy as np

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import input_pipeline
from mentormix.data import record_checks
from mentormix.evaluation import averaged_student
from mentormix.evaluation import results as results_lib
from mentormix import files as files_lib
from mentormix.messages import log
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix import runtime
from mentormix.runtime import tf
from mentormix import students
from mentormix import summaries

_TOP = 5
_FIRST_SECS = 5  # Between two looks for the first checkpoint, at most.
_SAY_SECS = 600  # Between two lines while nothing new comes.


def evaluate(config):
  """Evaluates every new checkpoint until training has finished.

  A checkpoint that cannot be read is left out, and looked at again with every
  poll; results of an earlier run in the same directory are moved away.

  Args:
    config: a `config.EvalConfig`, validated.

  Returns:
    The `results.Result`s of all checkpoints so far, by step.

  Raises:
    UserError: data, student and checkpoint do not fit together.
    RunError: there was no new checkpoint for too long, or one that cannot be
      read is left.
  """
  runtime.select_device(config.device_id)
  if config.once and not checkpoints.find(config.checkpoint_dir):
    raise UserError('--checkpoint_dir=%s holds no checkpoint'
                    % config.checkpoint_dir)
  wait = _Wait(config)
  while not checkpoints.find(config.checkpoint_dir):
    wait.poll(None, None)
  asked = config
  config, _ = config_lib.resolve_eval(asked)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  students.get(config.studentnet)  # Unknown names end here.
  shards, count = record_checks.check_files(
      dataset, config.split_name,
      datasets.find_files(dataset, config.split_name, config.data_dir),
      config.max_bad_records)
  decoding.check_images(dataset, config.split_name, shards)
  log('TensorFlow %s: evaluating %s on %s, %d images, checkpoints from %s' % (
      runtime.VERSION, config.studentnet, config.data_dir, count,
      config.checkpoint_dir))

  path = config.output_csv_file or os.path.join(config.eval_dir,
                                                results_lib.FILE)
  with tf.Graph().as_default(), _writing(path):
    batch = input_pipeline.eval_batch(
        dataset, config.split_name, shards, count, config.batch_size)
    evaluator = _Evaluator(config, dataset, batch, count)
    writer = summaries.Writer(config.eval_dir)
    while True:
      # Of the run that is in the directory now; its end may have been raised.
      now, run = config_lib.resolve_eval(asked)
      if now != config:
        raise UserError(
            '--checkpoint_dir=%s holds a run of %s on %s now; start this '
            'command again' % (config.checkpoint_dir, now.studentnet,
                               now.dataset_name))
      results, unread = _evaluate_new(config, run, evaluator, path, writer)
      end = run.get('max_number_of_steps')
      last = max(results) if results else None
      if config.once or end is not None and results and last >= end:
        break
      wait.poll(last, end)
    writer.close()
  if unread:
    raise RunError('%s; %d others are in %s' % (
        unread[max(unread)], len(results), path))
  if not results:
    raise RunError('--checkpoint_dir=%s: every checkpoint was deleted before '
                   'it could be read' % config.checkpoint_dir)
  peak = max(results.values(), key=lambda r: r.top1)
  log('last %.2f%% at step %d, peak %.2f%% at step %d, %d checkpoints: %s' % (
      100 * results[last].top1, last, 100 * peak.top1, peak.step,
      len(results), path))
  return [results[step] for step in sorted(results)]


@contextlib.contextmanager
def _writing(path):
  """Says in a RunError that results could not be written, and what to do."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = runtime.reason(error)
    if not files_lib.is_about_disk(reason):
      raise
    raise RunError('results cannot be written (%s): make room or mend it; then '
                   'the same command goes on, and %s is as before'
                   % (reason, path))


def _evaluate_new(config, run, evaluator, path, writer):
  """Evaluates what is there and not yet in results.csv, oldest first.

  Args:
    config: the `config.EvalConfig`.
    run: what config.json says of the run, a dict.
    evaluator: an `_Evaluator`.
    path: of results.csv.
    writer: of the summaries.

  Returns:
    (results, unread): step -> `results.Result` of all checkpoints of the run so
    far; and step -> why, of those that cannot be read.
  """
  started = run.get(config_lib.STARTED, 0)
  rows, moved = results_lib.of_run(path, started)
  if moved:
    log('%s has results of an earlier run; they are in %s now' % (path, moved))
  results, unread = {r.step: r for r in rows}, {}
  found = checkpoints.find(config.checkpoint_dir)
  for step in sorted(set(found) - set(results)):
    try:
      result = evaluator.run(found[step], step)
    except checkpoints.Damaged as error:
      if not checkpoints.exists(found[step]):  # Deleted while we looked at it.
        log('step %d: the checkpoint is gone, skipped' % step)
        continue
      unread[step] = error
      log('step %d: skipped, %s' % (step, error))
      continue
    now = config_lib.load(config.checkpoint_dir) or {}
    if now.get(config_lib.STARTED, 0) != started:
      log('step %d: skipped, %s was started anew' % (
          step, config.checkpoint_dir))
      break
    # The clock of the machine that trains may be ahead.
    results[step] = result = result._replace(
        wall_time=max(result.wall_time, started))
    _summarize(writer, result)
    results_lib.write(path, [results[step] for step in sorted(results)])
    peak = max(results.values(), key=lambda r: r.top1)
    log('%s  peak %.2f%% at step %d' % (result, 100 * peak.top1, peak.step))
  return results, unread


class _Wait(object):
  """Waits for checkpoints: not silently, and not longer than --timeout."""

  def __init__(self, config):
    self._config = config
    self._last = None
    self._since = time.time()
    self._said, self._holder = 0, None

  def poll(self, last, end):
    """Sleeps until it is time to look again.

    Args:
      last: step of the last checkpoint that was evaluated; None for none.
      end: step that training ends with; None if that is not known.

    Raises:
      RunError: nothing new has come for longer than --timeout.
    """
    config, now = self._config, time.time()
    if last != self._last:
      self._last, self._since = last, now
    holder = files_lib.holder(config.checkpoint_dir)
    line = '%s in %s; %s' % (
        'no checkpoint yet' if last is None else
        'waiting for checkpoints after step %d%s' % (
            last, '' if end is None else ' of %d' % end),
        config.checkpoint_dir,
        'training: %s' % holder if holder else
        'no process is known to train there')
    if config.timeout and now - self._since >= config.timeout:
      raise RunError('%s; nothing new for --timeout=%d seconds; %s' % (
          line, config.timeout,
          'see what it is doing' if holder else
          'go on training by its own command, then evaluate by this one'))
    # At once when training starts or ends; a new step has had its own line.
    if now - self._said >= _SAY_SECS or holder != self._holder:
      log(line)
      self._said, self._holder = now, holder
    seconds = config.eval_interval_secs
    if last is None:
      seconds = min(seconds, _FIRST_SECS)
    if config.timeout:
      seconds = min(seconds, self._since + config.timeout - now)
    time.sleep(max(seconds, 0))


class _Evaluator(object):
  """The graph of one pass; runs it for one checkpoint after the other."""

  def __init__(self, config, dataset, batch, count):
    self._data_dir = config.data_dir
    self._count = count
    self._student = averaged_student.AveragedStudent(
        config.studentnet, dataset, batch.images, config.master)
    logits = self._student.logits
    total = lambda hits: tf.reduce_sum(tf.cast(hits, tf.int64))
    self._sums = (
        total(tf.equal(tf.argmax(logits, 1), batch.labels)),
        total(tf.nn.in_top_k(logits, batch.labels,
                             min(_TOP, dataset.num_classes))),
        tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=batch.labels, logits=logits)),
        tf.size(batch.labels))

  def run(self, prefix, step):
    """One pass; a `results.Result`."""
    sums = np.zeros(4, np.float64)
    for values in self._student.one_pass(prefix, self._sums):
      sums += values
    hits1, hits5, loss, count = sums
    if count != self._count:
      raise RunError('--data_dir=%s changed during the evaluation: %d images '
                     'read, %d expected'
                     % (self._data_dir, count, self._count))
    return results_lib.Result(step, hits1 / count, hits5 / count, loss / count,
                              int(count), time.time())


def _summarize(writer, result):
  values = [tf.Summary.Value(tag='eval/' + name, simple_value=value)
            for name, value in (('top1', result.top1), ('top5', result.top5),
                                ('loss', result.loss))]
  writer.add_summary(tf.Summary(value=values), result.step)
