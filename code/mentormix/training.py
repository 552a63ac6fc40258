"""Training: the graph of one step, and the session that repeats it.

    batch -> method (mentormix_loss) -> mean + decay -> momentum -> averages

What a step changes, it changes once: weights, their averages, the moving
statistics, the mentors' loss averages, the global step.
"""
import collections
import contextlib
import json
import math
import os
import signal
import sys
import time

import numpy as np
import tqdm

from mentormix import checkpoints
from mentormix import command
from mentormix import config as config_lib
from mentormix import datasets
from mentormix import files as files_lib
from mentormix import input_pipeline
from mentormix import loss_traces
from mentormix import mentormix_loss
from mentormix import mentornet
from mentormix import noise
from mentormix import runtime
from mentormix import sampling
from mentormix import schedules
from mentormix import students
from mentormix import summaries
from mentormix.command import log
from mentormix.command import RunError
from mentormix.command import UserError
from mentormix.runtime import tf
from mentormix.students import resnet

MOMENTUM = 0.9
MAX_CHECKPOINTS = 5  # Kept on disk.
TRACE_SIZES = 'loss_csv.json'  # Beside them.
_FIRST_STREAM = 32  # Of random numbers; those below are of the augmentation.
_LOG_SECS = 30


class Step(collections.namedtuple(
    'Step', 'train_op loss v selected unmixed epoch_percent weights_l2')):
  """One training step.

  Attributes:
    train_op: runs the step.
    loss: float32 scalar, the mean over the batch plus weight decay.
    v: [B], the weight of each example.
    selected: float32 scalar, share of the batch with v >= 0.5.
    unmixed: [B], the loss of each example as it is; None for mixup.
    epoch_percent: int32 scalar, how far training is.
    weights_l2: float32 scalar, half the sum of the squared weights that the
      step leads to.
  """
  __slots__ = ()


def build_step(config, dataset, num_examples, batch, network=None,
               sampler=None):
  """Adds one training step to the graph, summaries included.

  Args:
    config: a `config.TrainConfig`.
    dataset: a `datasets.Dataset`.
    num_examples: size of an epoch.
    batch: an `input_pipeline.Batch`.
    network: the MentorNet, features [B, 4] -> v [B]; for the methods that
      need one.
    sampler: what draws partners, shares and dropped examples; None: a
      `sampling.Sampler` of the step.

  Returns:
    A `Step`.
  """
  global_step = tf.train.get_or_create_global_step()
  step = tf.identity(global_step)  # Steps done before this one.
  labels = tf.one_hot(batch.labels, dataset.num_classes)  # [B, K]
  student = _student(config, dataset.num_classes)
  epoch_percent = schedules.epoch_percent(step, config.max_number_of_steps)

  sampler = sampler or sampling.Sampler(config.seed, step, _FIRST_STREAM)
  result = _apply_method(config, network, epoch_percent, batch.images, labels,
                         student, sampler)

  loss = tf.reduce_mean(result.per_example)
  # With a second weighting, published: no weight decay.
  if not (config.method == 'mentormix' and config.second_reweight):
    loss += resnet.weight_decay()
  rate = schedules.learning_rate(
      step, config.learning_rate, config.learning_rate_decay_factor,
      schedules.decay_steps(num_examples, config.batch_size,
                            config.num_epochs_per_decay))
  train_op, weights_l2 = _update(loss, rate, step, global_step,
                                 config.precision)

  selected = tf.reduce_mean(tf.cast(result.v >= mentornet.SELECTED, tf.float32))
  tf.summary.scalar('loss', loss)
  tf.summary.scalar('learning_rate', rate)
  tf.summary.scalar('v/mean', tf.reduce_mean(result.v))
  tf.summary.scalar('v/selected', selected)
  # A weight that is no number would end the run here, with another message.
  tf.summary.histogram('v', tf.where(
      tf.math.is_nan(result.v), tf.zeros_like(result.v), result.v))
  return Step(train_op, loss, result.v, selected, result.unmixed, epoch_percent,
              weights_l2)


def _apply_method(config, network, epoch_percent, images, labels, student,
                  sampler):
  """The `mentormix_loss.Loss` of the method asked for."""
  if config.method == 'cross_entropy':
    return mentormix_loss.cross_entropy(images, labels, student)
  if config.method == 'mixup':
    return mentormix_loss.mixup(images, labels, student, config.mixup_alpha,
                                sampler)

  def new_mentor(name):
    return mentornet.Mentor(
        network, epoch_percent, config.loss_p_percentile, config.burn_in_epoch,
        schedules.dropout_table(config.example_dropout_rates), name,
        sampler.uniform)

  mentor, second_mentor = new_mentor('mentor'), None
  if config.method == 'mentornet':
    result = mentormix_loss.mentornet(images, labels, student, mentor)
  else:
    if config.second_reweight:
      second_mentor = new_mentor('second_mentor')
    result = mentormix_loss.mentormix(
        images, labels, student, mentor, config.mixup_alpha, sampler,
        second_mentor)
  tf.summary.scalar('loss_average', mentor.average)
  if second_mentor:
    tf.summary.scalar('second_loss_average', second_mentor.average)
  return result


def _student(config, num_classes):
  """The student in training mode; every call shares the same variables."""
  network = students.get(config.studentnet)
  dtype = runtime.arithmetic(config.precision)

  def student(images, update_statistics=True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
      return network(images, num_classes, is_training=True,
                     update_statistics=update_statistics, dtype=dtype)
  return student


def _update(loss, rate, step, global_step, precision='float32'):
  """Statistics and loss averages, momentum step, weight averages: in turn."""
  optimizer = runtime.scale_loss(
      tf.train.MomentumOptimizer(rate, MOMENTUM), precision)
  # Not gated, which would compute the gradient by the images, too, for nothing.
  gradients = optimizer.compute_gradients(
      loss, gate_gradients=tf.train.Optimizer.GATE_NONE)
  # Both passes are over before a weight moves.
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    apply = optimizer.apply_gradients(gradients)
  # The average takes the weights *after* the step.
  with tf.control_dependencies([apply]):
    average = tf.train.ExponentialMovingAverage(
        schedules.weight_average_decay(step)).apply(tf.trainable_variables())
    weights_l2 = tf.add_n([tf.nn.l2_loss(w.read_value())
                           for w in tf.trainable_variables()])
    return tf.group(average, global_step.assign_add(1)), weights_l2


def summarize_separation(v, is_clean):
  """Summaries of how well v tells clean from noisy labels.

  Args:
    v: [B] weights.
    is_clean: [B] bool.

  Returns:
    (auc, precision, recall), float32 scalars: the chance that a clean example
    outweighs a noisy one (ties count half), and of the selection v >= 0.5 the
    share that is clean and the share of the clean that it finds. NaN where the
    batch leaves a value undefined.
  """
  clean, noisy = tf.boolean_mask(v, is_clean), tf.boolean_mask(v, ~is_clean)
  means = tf.reduce_mean(clean), tf.reduce_mean(noisy)
  sign = tf.sign(clean[:, tf.newaxis] - noisy[tf.newaxis, :])
  auc = tf.reduce_mean((sign + 1) / 2)
  chosen = v >= mentornet.SELECTED
  hits = tf.reduce_sum(tf.cast(chosen & is_clean, tf.float32))
  precision = hits / tf.reduce_sum(tf.cast(chosen, tf.float32))
  recall = hits / tf.reduce_sum(tf.cast(is_clean, tf.float32))
  tf.summary.scalar('v/clean', means[0])
  tf.summary.scalar('v/noisy', means[1])
  tf.summary.scalar('v/auc', auc)
  tf.summary.scalar('v/precision', precision)
  tf.summary.scalar('v/recall', recall)
  return auc, precision, recall


def train(config):
  """Trains to `max_number_of_steps`, going on where the directory left off.

  Args:
    config: a `config.TrainConfig`, validated.

  Returns:
    0, or 128 + n when signal n ended the run, after a checkpoint.

  Raises:
    UserError: the data, the MentorNet or the directory do not fit; nothing was
      started.
    RunError: the run cannot go on.
  """
  runtime.select_device(config.device_id)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  students.get(config.studentnet)
  schedules.dropout_table(config.example_dropout_rates)
  slow = runtime.check_precision(config.precision)
  if slow:
    log(slow)
  network, mentornet_md5 = None, ''
  if config.method in config_lib.WEIGHTED:
    network = mentornet.load(config.trained_mentornet_dir,
                             config.loss_p_percentile)
    mentornet_md5 = mentornet.md5(config.trained_mentornet_dir)
  start, started = _resume(config, mentornet_md5)
  files, num_examples = datasets.check_files(
      dataset, 'train', datasets.find_files(dataset, 'train', config.data_dir),
      config.max_bad_records,
      os.path.join(config.train_log_dir, datasets.GOOD_RECORDS))
  has_clean_labels = datasets.has_clean_labels(files)
  if config.loss_csv_file and not has_clean_labels:
    raise UserError('--loss_csv_file=%s: the clean labels of --data_dir=%s are '
                    'not known' % (config.loss_csv_file, config.data_dir))
  is_new = started is None
  config_lib.save(config, config.train_log_dir, **{
      # Whole, as in results.csv, and not before any row of an earlier run.
      config_lib.STARTED: math.ceil(time.time()) * 1.0 if is_new else started,
      config_lib.MENTORNET_MD5: mentornet_md5})
  noise.copy_facts(config.data_dir, config.train_log_dir)
  if start >= config.max_number_of_steps:
    log('%s is already at step %d of %d' % (
        config.train_log_dir, start, config.max_number_of_steps))
    return 0
  log('TensorFlow %s: %s, %s in %s precision on %s, %d examples, %s' % (
      runtime.VERSION, config.method, config.studentnet, config.precision,
      config.data_dir, num_examples,
      'from step %d' % start if start else 'a new run'))

  with tf.Graph().as_default(), tf.device(
      tf.train.replica_device_setter(config.ps_tasks)):
    tf.set_random_seed(config.seed)  # Of the initial weights.
    batch = input_pipeline.train_batch(
        dataset, files, num_examples, config.batch_size, config.seed,
        tf.train.get_or_create_global_step(), config.num_readers,
        config.num_preprocessing_threads)
    step = build_step(config, dataset, num_examples, batch, network)
    if has_clean_labels:
      summarize_separation(step.v, tf.equal(batch.labels, batch.clean_labels))
    with runtime.without_xla():
      saver = tf.train.Saver(max_to_keep=MAX_CHECKPOINTS,
                             save_relative_paths=True)
    signals = SignalHook()
    hooks = _hooks(config, step, batch, start, is_new, saver, signals)
    with _explained(config, dataset, files):
      try:
        _run(config, step, hooks, saver)
      finally:
        signals.restore()

  last = checkpoints.last_step(config.train_log_dir)
  stopped_by = signals.stop.received
  if stopped_by:
    log('stopped by %s at step %d, checkpoint saved; the same command goes on '
        'from there' % (signal.Signals(stopped_by).name, last))
    return 128 + stopped_by
  log('trained to step %d: %s' % (last, config.train_log_dir))
  return 0


@contextlib.contextmanager
def _explained(config, dataset, files):
  """Says of an error in the block, in a line, what it means and what to do."""
  try:
    yield
  except RunError:
    raise
  except Exception as error:
    goes_on = 'then the same command goes on from step %d in %s' % (
        checkpoints.last_step(config.train_log_dir), config.train_log_dir)
    cause = _cause(error, config, dataset, files)
    if not cause:
      log('training ended by an error that nobody foresaw; mend it, %s'
          % goes_on)
      raise
    raise RunError('%s; %s' % (cause, goes_on))


def _cause(error, config, dataset, files):
  """What an error in a step or a write means, and what to do; or None."""
  reason = runtime.reason(error)
  if files_lib.is_about_disk(reason):
    for name in ('data_dir', 'loss_csv_file', 'train_log_dir'):
      path = getattr(config, name)
      if path and path in reason:
        break
    return '--%s=%s cannot be read or written (%s): make room or mend it' % (
        name, path, reason)
  if isinstance(error, tf.errors.ResourceExhaustedError):
    return ('out of memory or the like (%s): end other processes, or take a '
            'smaller --batch_size' % reason)
  if isinstance(error, tf.errors.NotFoundError) and config.master:
    return '--master=%s is none (%s): mend it' % (config.master, reason)
  if isinstance(error, tf.errors.UnknownError):
    said = mentornet.formula_error(error)
    return said and '--trained_mentornet_dir=%s: %s: mend it' % (
        config.trained_mentornet_dir, said)
  if isinstance(error, (tf.errors.DataLossError,
                        tf.errors.InvalidArgumentError)):
    try:  # As when a file too large for memory was changed meanwhile.
      datasets.check_files(dataset, 'train', files)
      datasets.check_images(dataset, 'train', files)
    except UserError as damage:
      return str(damage)
    return ('a step failed, as it does on a damaged file or image (%s): check '
            '--data_dir=%s' % (reason, config.data_dir))
  return None


def _resume(config, mentornet_md5):
  """Finds out where training in the directory goes on, and whether it may.

  Args:
    config: a `config.TrainConfig`.
    mentornet_md5: of the files of its MentorNet.

  Returns:
    (start, started): the step to go on from, and when the run was first
    started, in seconds since 1970; 0 and None for a new run.

  Raises:
    UserError: the directory does not hold a run with these settings.
  """
  if not checkpoints.are_there(config.train_log_dir):
    return 0, None  # A start that failed leaves settings that bind nobody.
  saved = config_lib.load(config.train_log_dir)
  if saved is None:
    raise UserError('--train_log_dir=%s holds checkpoints but no config.json, '
                    'so whose they are is unknown; name another directory'
                    % config.train_log_dir)
  changes = config_lib.check_resume(config, mentornet_md5)
  noise.check_same(config.data_dir, config.train_log_dir)
  start, lines = checkpoints.recover(config.train_log_dir)
  for line in lines:
    log(line)
  if start is None:
    return 0, None
  for change in changes:
    log('going on with a changed setting: %s' % change)
  return start, saved.get(config_lib.STARTED, 0.0)


def _run(config, step, hooks, saver):
  with runtime.without_xla(), tf.train.MonitoredTrainingSession(
      master=config.master, is_chief=config.task == 0,
      checkpoint_dir=config.train_log_dir,
      scaffold=tf.train.Scaffold(saver=saver), hooks=hooks,
      save_checkpoint_secs=None, save_summaries_steps=None,
      save_summaries_secs=None, log_step_count_steps=None,
      config=runtime.session_config(config.precision, config.xla)) as session:
    while not session.should_stop():
      session.run(step.train_op)


def _hooks(config, step, batch, start, is_new, saver, signals):
  """In an order in which a NaN is seen before anything is saved."""
  hooks = [
      SoundHook(step, start, config),
      tf.train.StopAtStepHook(last_step=config.max_number_of_steps),
      ProgressHook(step, start, config.max_number_of_steps),
      signals,
  ]
  if config.task:  # The chief writes.
    return hooks
  if config.save_summaries_secs:
    hooks.append(SummaryHook(config, start))
  trace = None
  if config.loss_csv_file:
    trace = TraceHook(config, step, batch, is_new)
    hooks.append(trace)
  return hooks + [CheckpointHook(config, saver, signals, trace)]


class ProgressHook(tf.train.SessionRunHook):
  """A bar on a terminal; the same as log lines elsewhere, as under nohup."""

  def __init__(self, step, start, end):
    self._fetches = {'loss': step.loss, 'selected': step.selected}
    self._start, self._end = start, end
    self._done = start
    self._bar = None

  def begin(self):
    self._begun = self._shown = time.time()
    self._shown_at = self._start
    if sys.stdout.isatty():
      self._bar = tqdm.tqdm(total=self._end, initial=self._start, unit='step',
                            file=sys.stdout, dynamic_ncols=True)

  def before_run(self, run_context):
    interval = 1 if self._bar else _LOG_SECS
    due = time.time() - self._shown >= interval or self._done == self._start
    return tf.train.SessionRunArgs(self._fetches) if due else None

  def after_run(self, run_context, run_values):
    self._done += 1
    if run_values.results:
      self._show(**run_values.results)

  def _show(self, loss, selected):
    now = time.time()
    if self._bar:
      self._bar.set_postfix(loss='%.3f' % loss, selected='%.0f%%' % (
          100 * selected), refresh=False)
      self._bar.update(self._done - self._bar.n)
    else:
      rate = (self._done - self._shown_at) / max(now - self._shown, 1e-9)
      mean = (self._done - self._start) / max(now - self._begun, 1e-9)
      log('step %d/%d (%.1f%%)  loss %.3f  selected %.0f%%  %.3g step/s  %s '
          'left' % (self._done, self._end, 100.0 * self._done / self._end, loss,
                    100 * selected, rate,
                    _duration((self._end - self._done) / mean)))
    self._shown, self._shown_at = now, self._done

  def end(self, session):
    if self._bar:
      self._bar.update(self._done - self._bar.n)
      self._bar.close()


class SummaryHook(tf.train.SessionRunHook):
  """Writes the summaries of the first step, and then of one now and then."""

  def __init__(self, config, start):
    self._config = config
    self._done = start
    self._due = 0  # When, in seconds since 1970.

  def begin(self):
    self._summaries = tf.summary.merge_all()
    self._writer = summaries.Writer(self._config.train_log_dir)
    if not self._done:
      self._writer.add_graph(tf.get_default_graph())

  def before_run(self, run_context):
    # In the same session call as the step: state moves once.
    return (tf.train.SessionRunArgs(self._summaries)
            if time.time() >= self._due else None)

  def after_run(self, run_context, run_values):
    self._done += 1
    if run_values.results is not None:
      self._writer.add_summary(run_values.results, self._done)
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
    self._fetches = (batch.source_ids, step.epoch_percent, batch.labels,
                     batch.clean_labels, step.unmixed)
    rows = config.max_number_of_steps * config.batch_size
    self._every = max(1, -(-rows // loss_traces.MAX_ROWS))
    self._writer = loss_traces.Writer(config.loss_csv_file, go_on=not is_new)
    self._sizes_path = os.path.join(config.train_log_dir, TRACE_SIZES)
    self._sizes = {}  # Step, as a string -> bytes.
    if not is_new:
      self._sizes = noise.read_object(self._sizes_path, 'sizes of a file') or {}

  def after_create_session(self, session, coord):
    self._done = int(session.run(tf.train.get_global_step()))
    size = self._sizes.get(str(self._done))
    if isinstance(size, int) and size >= 0:
      self._writer.cut(size)

  def before_run(self, run_context):
    due = self._done % self._every == 0
    return tf.train.SessionRunArgs(self._fetches) if due else None

  def after_run(self, run_context, run_values):
    self._done += 1
    if run_values.results:
      self._writer.add(*run_values.results)

  def before_save(self, step):
    """Writes the rows that have gathered; call it before each checkpoint."""
    self._sizes[str(step)] = self._writer.flush()
    with files_lib.replaced(self._sizes_path) as f:
      json.dump(self._sizes, f, indent=0)


def _duration(seconds):
  hours, rest = divmod(int(round(seconds)), 3600)
  return '%d:%02d:%02d' % (hours, rest // 60, rest % 60)


class SoundHook(tf.train.SessionRunHook):
  """Ends training in the step whose loss or weights are no numbers any more."""

  def __init__(self, step, start, config):
    self._fetches = {'loss': step.loss,
                     'sum of squared weights': step.weights_l2}
    self._done = start
    self._config = config

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(self._fetches)

  def after_run(self, run_context, run_values):
    self._done += 1
    bad = ['the %s is %g' % item for item in sorted(run_values.results.items())
           if not np.isfinite(item[1])]
    if bad:
      directory = self._config.train_log_dir
      raise RunError(
          'at step %d %s; as a rule the learning rate is too high: lower '
          '--learning_rate=%g and name another --train_log_dir; the last '
          'checkpoint in %s, of step %d, is from before' % (
              self._done, ' and '.join(bad), self._config.learning_rate,
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
    self.stop = command.StopSignals()
    self.save = False

  def after_create_session(self, session, coord):
    self.stop.install(signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    signal.signal(signal.SIGUSR1, self._ask_to_save)

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

  def __init__(self, config, saver, signals, trace):
    """Creates the hook.

    Args:
      config: a `config.TrainConfig`.
      saver: a tf.train.Saver.
      signals: the `SignalHook`, which comes before this one.
      trace: a `TraceHook`, or None.
    """
    self._config = config
    self._saver = saver
    self._signals = signals
    self._trace = trace
    self._path = os.path.join(config.train_log_dir, checkpoints.BASENAME)

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
    if session.run(self._step) != self._saved:
      self._save(session)

  def _save(self, session):
    self._saved = int(session.run(self._step))
    if self._trace:
      self._trace.before_save(self._saved)
    # Its graph is in the code, not in files beside the checkpoint.
    self._saver.save(session, self._path, self._saved, write_meta_graph=False)
    self._due = time.time() + self._config.save_interval_secs
