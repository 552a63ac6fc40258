"""Hooks of the training session: what happens between steps."""
import json
import os
import signal
import sys
import time

import numpy as np
import tqdm

from mentormix import checkpoints
from mentormix import files
from mentormix.mentornet import loss_traces
from mentormix.messages import log
from mentormix.messages import RunError
from mentormix.runtime import tf
from mentormix import signals as signals_lib
from mentormix import summaries

TRACE_SIZES = 'loss_csv.json'  # Beside them.

_LOG_SECS = 30


class WatchHook(tf.train.SessionRunHook):
  """Tells the `cluster.Watch` of steps."""

  def __init__(self, watch):
    self._watch = watch

  def after_run(self, run_context, run_values):
    self._watch.stepped()


class EndHook(tf.train.SessionRunHook):
  """Ends training after a number of steps.

  tf.train.StopAtStepHook may take one more where other workers count, too.
  """

  def __init__(self, step, end):
    self._done = step.done
    self._end = end

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._done)

  def after_run(self, run_context, run_values):
    if run_values.results >= self._end:
      run_context.request_stop()


class ProgressHook(tf.train.SessionRunHook):
  """A bar on a terminal; the same as log lines elsewhere, as under nohup."""

  def __init__(self, step, end):
    self._fetches = {'done': step.done, 'loss': step.loss,
                     'selected': step.selected}
    self._end = end
    self._bar = None

  def after_create_session(self, session, coord):
    """Also when a server was gone; some steps are then done again."""
    self._start = int(session.run(tf.train.get_global_step()))
    self._begun = time.time()
    self._shown, self._shown_at = None, self._start
    if sys.stdout.isatty():
      self._bar = self._bar or tqdm.tqdm(
          total=self._end, initial=self._start, unit='step', file=sys.stdout,
          dynamic_ncols=True)

  def before_run(self, run_context):
    interval = 1 if self._bar else _LOG_SECS
    due = self._shown is None or time.time() - self._shown >= interval
    return tf.train.SessionRunArgs(self._fetches) if due else None

  def after_run(self, run_context, run_values):
    if run_values.results:
      self._show(**run_values.results)

  def _show(self, done, loss, selected):
    now = time.time()
    if self._bar:
      self._bar.set_postfix(loss='%.3f' % loss, selected='%.0f%%' % (
          100 * selected), refresh=False)
      self._bar.update(done - self._bar.n)
    else:
      shown = self._begun if self._shown is None else self._shown
      rate = (done - self._shown_at) / max(now - shown, 1e-9)
      # A worker may see its first step before it counts.
      mean = max(done - self._start, 1) / max(now - self._begun, 1e-9)
      log('step %d/%d (%.1f%%)  loss %.3f  selected %.0f%%  %.3g step/s  %s '
          'left' % (done, self._end, 100.0 * done / self._end, loss,
                    100 * selected, rate,
                    _duration(max(self._end - done, 0) / mean)))
    self._shown, self._shown_at = now, done

  def end(self, session):
    if self._bar:
      self._bar.update(int(session.run(tf.train.get_global_step()))
                       - self._bar.n)
      self._bar.close()


class SummaryHook(tf.train.SessionRunHook):
  """Writes the summaries of the first step, and then of one now and then."""

  def __init__(self, config, step, start):
    self._config = config
    self._fetches = {'done': step.done}
    self._is_new = not start
    self._due = 0  # When, in seconds since 1970.

  def begin(self):
    self._fetches['summary'] = tf.summary.merge_all()
    self._writer = summaries.Writer(self._config.train_log_dir)
    if self._is_new:
      self._writer.add_graph(tf.get_default_graph())

  def before_run(self, run_context):
    # In the same session call as the step: state moves once.
    return (tf.train.SessionRunArgs(self._fetches)
            if time.time() >= self._due else None)

  def after_run(self, run_context, run_values):
    if run_values.results:
      self._writer.add_summary(run_values.results['summary'],
                               run_values.results['done'])
      self._due = time.time() + self._config.save_summaries_secs

  def end(self, session):
    self._writer.close()


class TraceHook(tf.train.SessionRunHook):
  """Writes a loss trace, from steps evenly spread over the training.

  Rows are written before each checkpoint, and how far the file then goes is
  noted by its step: a run that goes on from any of them repeats and lacks none.
  """

  def __init__(self, config, step, batch, is_new):
    """Creates the hook.

    Args:
      config: a `config.TrainConfig`.
      step: a `Step`.
      batch: an `input_pipeline.Batch`.
      is_new: whether the run is, so that the file may not hold rows.
    """
    self._done = step.done
    self._fetches = (batch.source_ids, step.epoch_percent, batch.labels,
                     batch.clean_labels, step.unmixed)
    rows = config.max_number_of_steps * config.batch_size
    self._every = max(1, -(-rows // loss_traces.MAX_ROWS))
    self._writer = loss_traces.Writer(config.loss_csv_file, go_on=not is_new)
    self._sizes_path = os.path.join(config.train_log_dir, TRACE_SIZES)
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
    with files.replaced(self._sizes_path) as f:
      json.dump(self._sizes, f, indent=0)


def _duration(seconds):
  hours, rest = divmod(int(round(seconds)), 3600)
  return '%d:%02d:%02d' % (hours, rest // 60, rest % 60)


class SoundHook(tf.train.SessionRunHook):
  """Ends training in the step whose loss or weights are no numbers any more."""

  def __init__(self, step, config):
    self._fetches = {'loss': step.loss,
                     'sum of squared weights': step.weights_l2}
    self._done = step.done
    self._config = config

  def before_run(self, run_context):
    return tf.train.SessionRunArgs((self._fetches, self._done))

  def after_run(self, run_context, run_values):
    values, done = run_values.results
    bad = ['the %s is %g' % item for item in sorted(values.items())
           if not np.isfinite(item[1])]
    if bad:
      directory = self._config.train_log_dir
      raise RunError(
          'at step %d %s; as a rule the learning rate is too high: lower '
          '--learning_rate=%g and name another --train_log_dir; the last '
          'checkpoint in %s, of step %d, is from before' % (
              done, ' and '.join(bad), self._config.learning_rate,
              directory, checkpoints.last_step(directory)))


class SignalHook(tf.train.SessionRunHook):
  """Ends training after the running step on SIGTERM, SIGHUP or Ctrl-C.

  The session then closes as at the end of training: with a checkpoint. A second
  signal ends the process at once.

  Attributes:
    stop: a `command.StopSignals`: whether, and which one, ended training.
    save: whether SIGUSR1 has asked for a checkpoint.
  """

  def __init__(self):
    self.stop = signals_lib.StopSignals()
    self.save = False

  def install(self):
    """Handles signals from now on; the hook does so when a session begins."""
    self.stop.install(signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    signal.signal(signal.SIGUSR1, self._ask_to_save)

  def after_create_session(self, session, coord):
    self.install()

  def _ask_to_save(self, number, frame):
    del number, frame
    self.save = True

  def after_run(self, run_context, run_values):
    if self.stop.received:
      run_context.request_stop()

  def restore(self):
    """Handles signals as before; call it when all that is to be saved is."""
    self.stop.restore()
    # Left alone, Python would let it end the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class CheckpointHook(tf.train.SessionRunHook):
  """Saves at the start of a run, now and then, on SIGUSR1, and at the end.

  TensorFlow's own hook comes before all others and writes from a thread, too:
  it saves a NaN before it can be seen, and loses summaries on a full disk.
  """

  def __init__(self, config, saver, signals, trace, wait):
    """Creates the hook.

    Args:
      config: a `config.TrainConfig`.
      saver: a tf.train.Saver.
      signals: the `SignalHook`, which comes before this one.
      trace: a `TraceHook`, or None.
      wait: a callable that returns when nobody else trains any more.
    """
    self._wait = wait
    self._config = config
    self._saver = saver
    self._signals = signals
    self._trace = trace
    # Whole, for a --master that works elsewhere.
    self._path = os.path.abspath(os.path.join(config.train_log_dir,
                                              checkpoints.BASENAME))

  def begin(self):
    self._step = tf.train.get_global_step()

  def after_create_session(self, session, coord):
    self._saved = session.run(self._step)
    self._due = time.time() + self._config.save_interval_secs
    if self._saved not in checkpoints.find(self._config.train_log_dir):
      self._save(session)

  def after_run(self, run_context, run_values):
    if self._signals.save:
      self._signals.save = False
      self._save(run_context.session)
      log('SIGUSR1: checkpoint of step %d saved' % self._saved)
    elif time.time() >= self._due:
      self._save(run_context.session)

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
    # Its graph is in the code, not in files beside the checkpoint.
    self._saver.save(session, self._path, self._saved, write_meta_graph=False)
    self._due = time.time() + self._config.save_interval_secs
