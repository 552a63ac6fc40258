"""Hooks of the training session: what happens between two steps.

`loop` puts them in an order in which a NaN is seen before anything is saved.
"""
import os
import time

import numpy as np

from mentormix import checkpoints
from mentormix import files
from mentormix import progress
from mentormix import summaries
from mentormix.mentornet import loss_traces
from mentormix.messages import log, RunError
from mentormix.runtime import tf

TRACE_SIZES = 'loss_csv.json'  # Beside the checkpoints.


class NanHook(tf.train.SessionRunHook):
  """Ends training in the step whose loss or weights are not finite."""

  def __init__(self, step, learning_rate, directory):
    self._fetches = {'loss': step.loss,
                     'sum of squared weights': step.weights_l2}
    self._done = step.done
    self._learning_rate = learning_rate
    self._directory = directory

  def before_run(self, run_context):
    return tf.train.SessionRunArgs((self._fetches, self._done))

  def after_run(self, run_context, run_values):
    values, done = run_values.results
    bad = [f'the {name} is {value:g}' for name, value in sorted(values.items())
           if not np.isfinite(value)]
    if bad:
      last = checkpoints.last_step(self._directory)
      raise RunError(
          f'at step {done} {" and ".join(bad)}; usually the learning rate is '
          f'too high: lower --learning_rate={self._learning_rate:g} and name '
          f'another --train_log_dir; the last checkpoint in {self._directory}, '
          f'of step {last}, is from before')


class EndHook(tf.train.SessionRunHook):
  """As tf.train.StopAtStepHook, but right if other workers count steps, too."""

  def __init__(self, step, end):
    self._done = step.done
    self._end = end

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._done)

  def after_run(self, run_context, run_values):
    if run_values.results >= self._end:
      run_context.request_stop()


class ProgressHook(tf.train.SessionRunHook):
  """Shows progress, with the loss and the share of trusted examples."""

  def __init__(self, step, end):
    self._fetches = {'done': step.done, 'loss': step.loss,
                     'selected': step.selected}
    self._end = end
    self._progress = None

  def after_create_session(self, session, coord):
    if self._progress:  # A server was gone; some steps are repeated.
      self._progress.close()
    self._progress = progress.Progress(
        int(session.run(tf.train.get_global_step())), self._end)

  def before_run(self, run_context):
    return (tf.train.SessionRunArgs(self._fetches) if self._progress.is_due()
            else None)

  def after_run(self, run_context, run_values):
    if run_values.results:
      values = run_values.results
      self._progress.show(values['done'], loss=f'{values["loss"]:.3f}',
                          selected=f'{values["selected"]:.0%}')

  def end(self, session):
    self._progress.close(int(session.run(tf.train.get_global_step())))


class SummaryHook(tf.train.SessionRunHook):
  """Writes summaries: of the first step, then of one every few seconds."""

  def __init__(self, step, directory, interval_secs, is_new):
    self._fetches = {'done': step.done}
    self._directory = directory
    self._interval_secs = interval_secs
    self._is_new = is_new  # The graph is then written, too.
    self._due = 0  # When, in seconds since 1970.

  def begin(self):
    self._fetches['summary'] = tf.summary.merge_all()
    self._writer = summaries.Writer(self._directory)
    if self._is_new:
      self._writer.add_graph(tf.get_default_graph())

  def after_create_session(self, session, coord):
    self._writer.add_start(int(session.run(tf.train.get_global_step())))

  def before_run(self, run_context):
    # In the same session call as the step, so that state changes once.
    return (tf.train.SessionRunArgs(self._fetches)
            if time.time() >= self._due else None)

  def after_run(self, run_context, run_values):
    if run_values.results:
      self._writer.add_summary(run_values.results['summary'],
                               run_values.results['done'])
      self._due = time.time() + self._interval_secs

  def end(self, session):
    self._writer.close()


class TraceHook(tf.train.SessionRunHook):
  """Writes a loss trace, from steps spread evenly over the training.

  Rows are written before each checkpoint, and the size of the file is noted for
  its step. A run that resumes from any of the checkpoints therefore repeats no
  row and lacks none.
  """

  def __init__(self, step, batch, path, directory, num_rows, is_new):
    """Creates the hook.

    Args:
      step: a `step.Step`.
      batch: an `input_pipeline.Batch`.
      path: of the trace, a CSV file.
      directory: where checkpoints are.
      num_rows: how many examples the whole training sees.
      is_new: whether the file must not hold rows.
    """
    self._done = step.done
    self._fetches = (batch.source_ids, step.epoch_percent, batch.labels,
                     batch.clean_labels, step.unmixed)
    self._every = max(1, -(-num_rows // loss_traces.MAX_ROWS))
    self._writer = loss_traces.Writer(path, resume=not is_new)
    self._sizes_path = os.path.join(directory, TRACE_SIZES)
    self._sizes = {}  # Step, as a string -> bytes.
    if not is_new:
      self._sizes = files.read_object(self._sizes_path, 'sizes of a file') or {}

  def after_create_session(self, session, coord):
    self._set_due(int(session.run(tf.train.get_global_step())))
    size = self._sizes.get(str(self._last))
    if isinstance(size, int) and size >= 0:
      self._writer.cut(size)

  def _set_due(self, last):
    """Notes that `last` steps are done, and after how many a row is due."""
    self._last = last
    self._due = -(-last // self._every) * self._every

  def before_run(self, run_context):
    due = self._last >= self._due
    return tf.train.SessionRunArgs(
        {'done': self._done, 'row': self._fetches if due else ()})

  def after_run(self, run_context, run_values):
    done, row = run_values.results['done'], run_values.results['row']
    if row:
      self._writer.add(*row)
      self._set_due(done)
    self._last = done

  def before_save(self, step):
    """Writes the rows that have gathered; call it before each checkpoint."""
    self._sizes[str(step)] = self._writer.flush()
    files.write_json(self._sizes_path, self._sizes)


class SignalHook(tf.train.SessionRunHook):
  """Ends training after the running step if a signal asks for that.

  The session then closes as at the end of training: with a checkpoint.
  """

  def __init__(self, signals):
    self._signals = signals

  def after_create_session(self, session, coord):
    self._signals.install()

  def after_run(self, run_context, run_values):
    if self._signals.stopped_by:
      run_context.request_stop()


class CheckpointHook(tf.train.SessionRunHook):
  """Saves at the start of a run, at intervals, on SIGUSR1, and at the end.

  TensorFlow's own hook runs before all others and writes from a thread: it
  saves a NaN before another hook can see it, and loses summaries on a full
  disk. `wait` returns when no other worker trains any more.
  """

  def __init__(self, saver, step, directory, interval_secs, interval_steps,
               signals, trace=None, wait=lambda: None):
    self._saver = saver
    self._done = step.done
    self._directory = directory
    # Absolute, for a --master with another working directory.
    self._path = os.path.abspath(os.path.join(directory, checkpoints.BASENAME))
    self._interval_secs = interval_secs
    self._interval_steps = interval_steps  # 0: by time.
    self._signals = signals
    self._trace = trace
    self._wait = wait

  def begin(self):
    self._step = tf.train.get_global_step()

  def after_create_session(self, session, coord):
    self._saved = session.run(self._step)
    self._due = time.time() + self._interval_secs
    if self._saved not in checkpoints.find(self._directory):
      self._save(session)

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._done) if self._interval_steps else None

  def after_run(self, run_context, run_values):
    if self._signals.save:
      self._signals.save = False
      self._save(run_context.session)
      log(f'SIGUSR1: checkpoint of step {self._saved} saved')
    elif self._is_due(run_values.results):
      self._save(run_context.session)

  def _is_due(self, done):
    """Whether to save after step `done`, which is None if time decides."""
    if not self._interval_steps:
      return time.time() >= self._due
    # The other workers of a cluster count steps, too.
    return done // self._interval_steps > self._saved // self._interval_steps

  def end(self, session):
    self._save_if_new(session)
    self._wait()
    self._save_if_new(session)

  def _save_if_new(self, session):
    if session.run(self._step) != self._saved:
      self._save(session)

  def _save(self, session):
    self._saved = int(session.run(self._step))
    if self._trace:
      self._trace.before_save(self._saved)
    # The graph is in the code, not in files beside the checkpoint.
    self._saver.save(session, self._path, self._saved, write_meta_graph=False)
    self._due = time.time() + self._interval_secs
