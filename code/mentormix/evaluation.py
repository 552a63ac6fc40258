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
from mentormix import datasets
from mentormix import input_pipeline
from mentormix import results as results_lib
from mentormix import runtime
from mentormix import schedules
from mentormix import students
from mentormix.command import log
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf

_TOP = 5


def evaluate(config):
  """Evaluates every new checkpoint until training has finished.

  Args:
    config: a `config.EvalConfig`, validated.

  Returns:
    The `results.Result`s of all checkpoints so far, by step.

  Raises:
    UserError: data, student and checkpoint do not fit together.
  """
  runtime.select_device(config.device_id)
  if config.once and not checkpoints.find(config.checkpoint_dir):
    raise UserError('--checkpoint_dir=%s holds no checkpoint'
                    % config.checkpoint_dir)
  _wait_for_first_checkpoint(config)
  config, _ = config_lib.resolve_eval(config)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  students.get(config.studentnet)  # Unknown names end here.
  files = datasets.find_files(dataset, config.split_name, config.data_dir)
  count = datasets.count_records(dataset, config.split_name, files)
  log('TensorFlow %s: evaluating %s on %s, %d images, checkpoints from %s' % (
      runtime.VERSION, config.studentnet, config.data_dir, count,
      config.checkpoint_dir))

  path = config.output_csv_file or os.path.join(config.eval_dir,
                                                results_lib.FILE)
  results = {r.step: r for r in results_lib.read(path)}
  with tf.Graph().as_default():
    batch = input_pipeline.eval_batch(
        dataset, config.split_name, files, count, config.batch_size)
    evaluator = _Evaluator(config, dataset, batch, count)
    writer = tf.summary.FileWriter(config.eval_dir)
    while True:
      found = checkpoints.find(config.checkpoint_dir)
      for step in sorted(set(found) - set(results)):
        result = evaluator.run(found[step], step)
        if result is None:  # It was deleted while we looked at it.
          log('step %d: the checkpoint is gone, skipped' % step)
          continue
        results[step] = result
        results_lib.append(path, result)
        _summarize(writer, result)
        peak = max(results.values(), key=lambda r: r.top1)
        log('%s  peak %.2f%% at step %d' % (result, 100 * peak.top1, peak.step))
      _, last_step = config_lib.resolve_eval(config)  # It may have been raised.
      finished = last_step is not None and max(results or [-1]) >= last_step
      if config.once or finished:
        break
      time.sleep(config.eval_interval_secs)
    writer.close()
  results = [results[step] for step in sorted(results)]
  if not results:
    raise RunError('--checkpoint_dir=%s: every checkpoint was deleted before '
                   'it could be read' % config.checkpoint_dir)
  peak = max(results, key=lambda r: r.top1)
  log('last %.2f%% at step %d, peak %.2f%% at step %d, %d checkpoints: %s' % (
      100 * results[-1].top1, results[-1].step, 100 * peak.top1, peak.step,
      len(results), path))
  return results


def _wait_for_first_checkpoint(config):
  said = False
  while not checkpoints.find(config.checkpoint_dir):
    if not said:
      log('waiting for the first checkpoint in %s' % config.checkpoint_dir)
      said = True
    time.sleep(min(config.eval_interval_secs, 5))


class AveragedStudent(object):
  """A student in evaluation mode, with averaged weights and raw statistics.

  Attributes:
    logits: [B, K].
  """

  def __init__(self, studentnet, dataset, images, master=''):
    """Adds the student to the graph.

    Args:
      studentnet: its name.
      dataset: a `datasets.Dataset`.
      images: [B, H, W, 3], from `input_pipeline.eval_batch`.
      master: TensorFlow master to use.
    """
    self._what = '--studentnet=%s on --dataset_name=%s' % (
        studentnet, dataset.name)
    self._master = master
    self.logits = students.get(studentnet)(
        images, dataset.num_classes, is_training=False)
    average = tf.train.ExponentialMovingAverage(schedules.WEIGHT_AVERAGE_DECAY)
    trainable = tf.trainable_variables()
    self._restored = {average.average_name(v): v for v in trainable}
    self._restored.update(
        {v.op.name: v for v in tf.model_variables() if v not in trainable})
    self._initialize = tf.local_variables_initializer()

  def one_pass(self, prefix, fetches):
    """Yields the values of `fetches` for every batch of one pass.

    Args:
      prefix: path of the checkpoint that the weights come from.
      fetches: tensors, as for session.run.

    Raises:
      UserError: the checkpoint is of another student or number of classes.
      RunError: the checkpoint or the data cannot be read.
    """
    values = checkpoints.read(
        prefix, {name: variable.shape.as_list()
                 for name, variable in self._restored.items()}, self._what)
    try:
      coordinator = tf.train.Coordinator()
      # Closed, but not made the default one: a default must not outlive what
      # the caller does between two batches.
      with contextlib.closing(tf.Session(
          self._master, config=runtime.session_config())) as session:
        session.run(self._initialize)
        for name, variable in self._restored.items():
          variable.load(values[name], session)
        threads = tf.train.start_queue_runners(session, coordinator)
        try:
          while True:
            yield session.run(fetches)
        except tf.errors.OutOfRangeError:
          pass
        finally:
          coordinator.request_stop()
          coordinator.join(threads)
    except (tf.errors.OpError, ValueError) as error:
      raise RunError('the checkpoint %s cannot be evaluated: %s'
                     % (prefix, runtime.reason(error)))


class _Evaluator(object):
  """The graph of one pass; runs it for one checkpoint after the other."""

  def __init__(self, config, dataset, batch, count):
    self._data_dir = config.data_dir
    self._count = count
    self._student = AveragedStudent(
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
    """One pass; a `results.Result`, or None if the checkpoint has vanished."""
    sums = np.zeros(4, np.float64)
    try:
      for values in self._student.one_pass(prefix, self._sums):
        sums += values
    except RunError:
      if checkpoints.exists(prefix):
        raise
      return None
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
  writer.flush()
