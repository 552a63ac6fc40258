"""Evaluation: averaged weights, every image once, a row per checkpoint.

It is a process of its own, which shares only a directory with training: the
checkpoints and config.json. It uses neither the MentorNet nor the loss.
"""
import contextlib
import math
import os
import time

import numpy as np

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import files as files_lib
from mentormix import runtime
from mentormix import students
from mentormix import summaries
from mentormix.data import noise_facts
from mentormix.data import splits
from mentormix.evaluation import averaged_student
from mentormix.evaluation import results as eval_results
from mentormix.messages import log, RunError, UserError
from mentormix.runtime import tf

_TOP = 5
_MAX_FIRST_POLL_SECS = 5  # While there is no checkpoint yet.
_LOG_SECS = 600  # Between two log lines while nothing new comes.


def evaluate(config):
  """Evaluates every new checkpoint until training has finished.

  It skips a checkpoint that cannot be read, and tries again at the next poll.
  It moves the results of an earlier run in the same directory away.

  Args:
    config: a `config.EvalConfig`, validated.

  Returns:
    The `results.Result`s of all checkpoints so far, by step.

  Raises:
    UserError: data, student and checkpoint do not match.
    RunError: no new checkpoint came for too long, or a checkpoint cannot be
      read.
  """
  runtime.select_device(config.device_id)
  wait = _Wait(config)
  while not checkpoints.find(config.checkpoint_dir):
    if config.once:
      raise UserError(
          f'--checkpoint_dir={config.checkpoint_dir} holds no checkpoint')
    wait.poll(None, None)
  filled, _ = config_lib.resolve_eval(config)
  path = config.output_csv_file or os.path.join(config.eval_dir,
                                                eval_results.FILE)
  with tf.Graph().as_default(), _disk_errors_explained(path):
    evaluator = _Evaluator(filled)
    _note_data(config)
    writer = summaries.Writer(config.eval_dir)
    while True:
      # Of the run that is in the directory now.
      now, run = config_lib.resolve_eval(config)
      if now != filled:
        raise UserError(
            f'{config.checkpoint_dir} holds a run of '
            f'{now.studentnet} on {now.dataset_name} now; start this command '
            'again')
      results, unreadable = _evaluate_new(filled, run, evaluator, path, writer)
      last, end = max(results, default=None), run.get('max_number_of_steps')
      if config.once or None not in (last, end) and last >= end:
        break
      wait.poll(last, end)
    writer.close()
  if unreadable:
    raise RunError(f'{unreadable[max(unreadable)]}; {len(results)} others are '
                   f'in {path}')
  if not results:
    raise RunError(f'{config.checkpoint_dir}: every checkpoint was deleted '
                   'before it could be read')
  log(f'last {100 * results[last].top1:.2f}% at step {last}, '
      f'{_peak(results)}, {len(results)} checkpoints: {path}')
  return [results[step] for step in sorted(results)]


def _note_data(config):
  """Writes which data the results are about; UserError if they are others."""
  facts = noise_facts.read_facts(config.data_dir) or {}
  there = noise_facts.read_facts(config.eval_dir, eval_results.FACTS_FILE)
  differing = noise_facts.differing(facts, there or facts)
  if differing:
    raise UserError(
        f'--eval_dir={config.eval_dir} has results on other data than '
        f'--data_dir={config.data_dir}: {eval_results.FACTS_FILE} differs in '
        f'{", ".join(differing)}; name another --eval_dir')
  if facts:
    files_lib.write_json(
        os.path.join(config.eval_dir, eval_results.FACTS_FILE), facts, indent=1)


def _evaluate_new(config, run, evaluator, path, writer):
  """Evaluates the checkpoints that are not in results.csv, oldest first.

  Returns (results, unreadable): step -> `results.Result` of all checkpoints of
  the run so far; and step -> error, of those that cannot be read.
  """
  started = run.get(config_lib.STARTED, 0)
  rows, moved = eval_results.of_run(path, started)
  if moved:
    log(f'{path} has results of an earlier run; they are in {moved} now')
    writer.add_start(0)
  results, unreadable = {row.step: row for row in rows}, {}
  found = checkpoints.find(config.checkpoint_dir)
  # A row without a figure that is asked for comes anew.
  asked = [name for name, wanted in zip(eval_results.OPTIONAL, (
      config.statistics == 'recomputed', config.test_time_flip)) if wanted]
  done = {row.step for row in rows
          if not any(math.isnan(getattr(row, name)) for name in asked)}
  for step in sorted(set(found) - done):
    try:
      result = evaluator.run(found[step], step)
    except checkpoints.Damaged as error:
      if checkpoints.exists(found[step]):
        unreadable[step] = error
        log(f'step {step}: skipped, {error}')
      else:  # It was deleted in the meantime.
        log(f'step {step}: the checkpoint is gone, skipped')
      continue
    now = config_lib.load(config.checkpoint_dir) or {}
    if now.get(config_lib.STARTED, 0) != started:
      log(f'step {step}: skipped, {config.checkpoint_dir} was started anew')
      break
    # The clock of the machine that trains may be ahead.
    results[step] = result = result._replace(
        wall_time=max(result.wall_time, started))
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=f'eval/{name}', simple_value=getattr(result, name))
        for name in ('top1', 'top5', 'loss')]), step)
    eval_results.write(path, [results[step] for step in sorted(results)])
    log(f'{result}  {_peak(results)}')
  return results, unreadable


def _peak(results):
  """The best of some results, step -> `results.Result`, in words."""
  peak = max(results.values(), key=lambda result: result.top1)
  return f'peak {100 * peak.top1:.2f}% at step {peak.step}'


@contextlib.contextmanager
def _disk_errors_explained(path):
  """Turns errors of the disk into a RunError that says what to do."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = runtime.reason(error)
    if not files_lib.is_about_disk(reason):
      raise
    raise RunError(f'results cannot be written ({reason}): free space or fix '
                   'the disk, then run the same command again; '
                   f'{path} is as before')


class _Wait:
  """Waits for checkpoints, with log lines and at most for `timeout` seconds."""

  def __init__(self, config):
    self._config = config
    self._last, self._since = None, time.time()
    self._logged, self._holder = 0, None

  def poll(self, last, end):
    """Sleeps until the next look; RunError after `timeout` without.

    Args:
      last: step of the last checkpoint that was evaluated, or None.
      end: last step of the training; None if it is unknown.
    """
    config, now = self._config, time.time()
    if last != self._last:
      self._last, self._since = last, now
    holder = files_lib.holder(config.checkpoint_dir)
    line = (f'waiting for checkpoints after step {last} of {end or "unknown"}'
            if last is not None else 'no checkpoint yet')
    line += f' in {config.checkpoint_dir}; ' + (
        f'training: {holder}' if holder else
        'no process is known to train there')
    left = self._since + config.timeout - now if config.timeout else np.inf
    if left <= 0:
      advice = ('check that process' if holder else
                'resume the training, then run this command again')
      raise RunError(f'{line}; nothing new for {config.timeout} seconds; '
                     f'{advice}')
    # Also when training starts or ends. A new step has a line already.
    if now - self._logged >= _LOG_SECS or holder != self._holder:
      log(line)
      self._logged, self._holder = now, holder
    most = _MAX_FIRST_POLL_SECS if last is None else np.inf
    time.sleep(min(config.eval_interval_secs, most, left))


class _Evaluator:
  """The graph of one pass over the images; runs it for any checkpoint."""

  def __init__(self, config):
    dataset = splits.dataset(
        config.dataset_name, config.data_dir, students.get(config.studentnet),
        config.image_size)
    students.check_size(config.studentnet, dataset.image_size)
    data = splits.find(dataset, config.split_name, config.data_dir,
                       config.image_recipe, config.max_bad_records)
    data.check_images()
    self._count = data.count
    self._data_dir = config.data_dir
    log(f'TensorFlow {runtime.VERSION}: evaluating {config.studentnet} on '
        f'{config.data_dir}, {self._count} images, checkpoints from '
        f'{config.checkpoint_dir}')
    batch = data.eval_batch(config.batch_size)
    self._recomputes = config.statistics == 'recomputed'
    self._student = averaged_student.AveragedStudent(
        config.studentnet, dataset, batch.images, config.master,
        training=(_training_images(config, dataset) if self._recomputes
                  else None), flipped=config.test_time_flip)
    logits = self._student.logits
    total = lambda hits: tf.reduce_sum(tf.cast(hits, tf.int64))
    first = lambda logits: total(tf.equal(tf.argmax(logits, 1), batch.labels))
    self._sums = (
        first(logits),
        total(tf.nn.in_top_k(logits, batch.labels,
                             min(_TOP, dataset.num_classes))),
        tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=batch.labels, logits=logits)),
        tf.size(batch.labels))
    if config.test_time_flip:
      self._sums += (first(self._student.flipped_logits),)

  def run(self, prefix, step):
    """One pass with the weights of a checkpoint; a `results.Result`."""
    top1, top5, loss, flipped = self._pass(prefix)
    again = math.nan
    if self._recomputes:
      again, _, _, flipped = self._pass(prefix, recomputed=True)
    return eval_results.Result(
        step=step, top1=top1, top5=top5, loss=loss, count=self._count,
        wall_time=time.time(), top1_recomputed=again, top1_flipped=flipped)

  def _pass(self, prefix, **options):
    """(top1, top5, loss, top1_flipped) of one pass over the images."""
    hits1, hits5, loss, count, *flipped = np.sum(
        list(self._student.one_pass(prefix, self._sums, **options)), axis=0,
        dtype=np.float64)
    if count != self._count:
      raise RunError(
          f'{self._data_dir} changed during the evaluation: '
          f'{int(count)} images read, {self._count} expected')
    return (hits1 / count, hits5 / count, loss / count,
            flipped[0] / count if flipped else math.nan)


def _training_images(config, dataset):
  """Images for --statistics=recomputed, in batches as in training.

  They are not augmented, as those of the test.
  """
  run = config_lib.restore(config.checkpoint_dir)
  try:
    data = splits.find(
        dataset, 'train', config.train_data_dir or run.data_dir,
        config.image_recipe, config.max_bad_records)
  except UserError as error:
    raise UserError(str(error).replace('--data_dir', '--train_data_dir'))
  return data.eval_batch(run.batch_size).images
