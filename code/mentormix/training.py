"""Training: the graph of one step, and the session that repeats it.

    batch -> method (mentormix_loss) -> mean + decay -> momentum -> averages

What a step changes, it changes once: weights, their averages, the moving
statistics, the mentors' loss averages, the global step.

With a cluster each worker runs this program on a graph of its own, whose
variables lie on the servers: all that a step changes is shared by the workers.
W is the number of workers.
"""
import collections
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time

import numpy as np
import tqdm

from mentormix import checkpoints
from mentormix import cluster as cluster_lib
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
from mentormix import servers
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
    'Step', 'train_op done loss v selected unmixed epoch_percent weights_l2 '
    'sync_hook')):
  """One training step.

  Attributes:
    train_op: runs the step.
    done: int64 scalar, how many steps are done after it, those of other
      workers included.
    loss: float32 scalar, the mean over the batch plus weight decay.
    v: [B], the weight of each example.
    selected: float32 scalar, share of the batch with v >= 0.5.
    unmixed: [B], the loss of each example as it is; None for mixup.
    epoch_percent: int32 scalar, how far training is.
    weights_l2: float32 scalar, half the sum of the squared weights that the
      step leads to.
    sync_hook: what the session of synchronous training needs; else None.
  """
  __slots__ = ()


def build_step(config, dataset, num_examples, batch, network=None,
               sampler=None, cluster=cluster_lib.ALONE):
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
    cluster: a `cluster.Cluster`.

  Returns:
    A `Step`.
  """
  global_step = tf.train.get_or_create_global_step()
  step = tf.identity(global_step)  # Steps done before this one.
  labels = tf.one_hot(batch.labels, dataset.num_classes)  # [B, K]
  student = _student(config, dataset.num_classes, cluster)
  epoch_percent = schedules.epoch_percent(step, config.max_number_of_steps)

  sampler = sampler or sampling.Sampler(
      sampling.worker_seed(config.seed, cluster.worker), step, _FIRST_STREAM)
  result = _apply_method(config, network, epoch_percent, batch.images, labels,
                         student, sampler)

  loss = tf.reduce_mean(result.per_example)
  # With a second weighting, published: no weight decay.
  if not (config.method == 'mentormix' and config.second_reweight):
    loss += resnet.weight_decay()
  # Of one step, which is a worker's own unless it waits for the others.
  num_replicas = cluster.num_workers if config.sync_replicas else 1
  rate = schedules.learning_rate(
      step, config.learning_rate, config.learning_rate_decay_factor,
      schedules.decay_steps(num_examples, config.batch_size * num_replicas,
                            config.num_epochs_per_decay), config.warmup_steps)
  optimizer = _optimizer(rate, step, config.precision)
  sync_hook = None
  if config.sync_replicas:
    optimizer = tf.train.SyncReplicasOptimizer(optimizer, num_replicas)
  train_op = _update(loss, optimizer, global_step)
  if config.sync_replicas:
    sync_hook = SyncHook(optimizer, cluster)
  with tf.control_dependencies([train_op]):
    done = global_step.read_value()
    weights_l2 = _weights_l2()

  selected = tf.reduce_mean(tf.cast(result.v >= mentornet.SELECTED, tf.float32))
  tf.summary.scalar('loss', loss)
  tf.summary.scalar('learning_rate', rate)
  tf.summary.scalar('v/mean', tf.reduce_mean(result.v))
  tf.summary.scalar('v/selected', selected)
  # A weight that is no number would end the run here, with another message.
  tf.summary.histogram('v', tf.where(
      tf.math.is_nan(result.v), tf.zeros_like(result.v), result.v))
  return Step(train_op, done, loss, result.v, selected, result.unmixed,
              epoch_percent, weights_l2, sync_hook)


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


def _student(config, num_classes, cluster):
  """The student in training mode; every call shares the same variables."""
  network = students.get(config.studentnet)
  dtype = runtime.arithmetic(config.precision)

  def student(images, update_statistics=True):
    # From a server each weight is fetched once a step, not by every use of it.
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE,
                           caching_device=cluster.device or None):
      return network(images, num_classes, is_training=True,
                     update_statistics=update_statistics, dtype=dtype)
  return student


class _AveragingOptimizer(object):
  """Takes a step, then moves the averages of the weights, then counts it."""

  def __init__(self, optimizer, decay):
    """Creates the optimizer.

    Args:
      optimizer: a tf.train.Optimizer.
      decay: float32 scalar, of the averages.
    """
    self._decay = decay
    self._optimizer = optimizer
    self.compute_gradients = optimizer.compute_gradients

  def apply_gradients(self, gradients, global_step):
    """As of a tf.train.Optimizer."""
    apply = self._optimizer.apply_gradients(gradients)
    # The average takes the weights *after* the step.
    with tf.control_dependencies([apply]):
      averages = [self._average(w) for w in tf.trainable_variables()]
    with tf.control_dependencies(averages):
      return global_step.assign_add(1).op

  def _average(self, weight):
    """As tf.train.ExponentialMovingAverage, which would take a cached weight."""
    name = tf.train.ExponentialMovingAverage(0.0).average_name(weight)
    with tf.device(weight.device):
      with runtime.without_xla():  # In 1.15 it would leave both uninitialized.
        average = tf.get_variable(name, initializer=weight.initial_value,
                                  trainable=False)
      return average.assign_sub((1 - self._decay) * (
          average.read_value() - weight.read_value())).op


def _optimizer(rate, step, precision):
  """Momentum at that learning rate, and the averages of the weights."""
  return _AveragingOptimizer(
      runtime.scale_loss(tf.train.MomentumOptimizer(rate, MOMENTUM), precision),
      schedules.weight_average_decay(step))


def _update(loss, optimizer, global_step):
  """Statistics and loss averages, then the step of the optimizer."""
  # Not gated, which would compute the gradient by the images, too, for nothing.
  gradients = optimizer.compute_gradients(
      loss, gate_gradients=tf.train.Optimizer.GATE_NONE)
  # Both passes are over before a weight moves. Not as a dependence of all that
  # the optimizer adds: what synchronous training runs besides is no step.
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    gradients = [(tf.identity(g), w) for g, w in gradients]
  return optimizer.apply_gradients(gradients, global_step)


def _weights_l2():
  """Half the sum of the squared weights, each computed where it is."""
  squares = []
  for weight in tf.trainable_variables():
    with tf.device(weight.device):
      squares.append(tf.nn.l2_loss(weight.read_value()))
  return tf.add_n(squares)


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


def train(config, cluster=cluster_lib.ALONE):
  """Trains to `max_number_of_steps`, going on where the directory left off.

  Args:
    config: a `config.TrainConfig`, validated.
    cluster: a `cluster.Cluster`, of which this process is a worker.

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
  if config.sync_replicas and config.precision == 'mixed' and runtime.IS_1_15:
    raise UserError('--sync_replicas with --precision=mixed needs TensorFlow '
                    '2.x: the loss scaling of %s is of one worker'
                    % runtime.VERSION)
  network, mentornet_md5 = None, ''
  if config.method in config_lib.WEIGHTED:
    network = mentornet.load(config.trained_mentornet_dir,
                             config.loss_p_percentile)
    mentornet_md5 = mentornet.md5(config.trained_mentornet_dir)
  if cluster.is_chief:
    start, started = _resume(config, mentornet_md5)
  else:  # The chief looks after the directory.
    start, started = checkpoints.last_step(config.train_log_dir), None
  signals, server, watch = SignalHook(), None, None
  if cluster.jobs:  # The others are to know that it is there, before it reads.
    server, watch = servers.start(cluster, config)
  shards, num_examples = datasets.check_files(
      dataset, 'train', datasets.find_files(dataset, 'train', config.data_dir),
      config.max_bad_records)
  has_clean_labels = datasets.has_clean_labels(shards)
  if config.loss_csv_file and not has_clean_labels:
    raise UserError('--loss_csv_file=%s: the clean labels of --data_dir=%s are '
                    'not known' % (config.loss_csv_file, config.data_dir))
  is_new = started is None
  if cluster.is_chief:
    config_lib.save(config, config.train_log_dir, **{
        # Whole, as in results.csv, and not before any row of an earlier run.
        config_lib.STARTED: (math.ceil(time.time()) * 1.0 if is_new
                             else started),
        config_lib.MENTORNET_MD5: mentornet_md5})
    noise.copy_facts(config.data_dir, config.train_log_dir)
  if start >= config.max_number_of_steps:
    log('%s is already at step %d of %d' % (
        config.train_log_dir, start, config.max_number_of_steps))
    if server and cluster.is_chief:
      watch.end()
      servers.end(cluster, config, server)
    return 0
  log('TensorFlow %s: %s, %s in %s precision on %s, %d examples, %s' % (
      runtime.VERSION, config.method, config.studentnet, config.precision,
      config.data_dir, num_examples,
      'worker %d' % cluster.worker if not cluster.is_chief else
      'from step %d' % start if start else 'a new run'))

  if server:
    signals.install()  # It may have to wait for the others.
  with tf.Graph().as_default(), tf.device(
      servers.placement(cluster, config)):
    # Of the initial weights, and of the order of files.
    tf.set_random_seed(sampling.worker_seed(config.seed, cluster.worker))
    used = tf.train.get_or_create_global_step()  # Batches, by this worker.
    if cluster.num_workers > 1 and not config.sync_replicas:
      used = used // cluster.num_workers
    batch = input_pipeline.train_batch(
        dataset, shards, num_examples,
        config.batch_size, config.seed, used,
        config.num_readers, config.num_preprocessing_threads, cluster.worker,
        cluster.num_workers, servers.device(cluster, config),
        in_memory=not config.master)
    step = build_step(config, dataset, num_examples, batch, network,
                      cluster=cluster)
    if has_clean_labels:
      summarize_separation(step.v, tf.equal(batch.labels, batch.clean_labels))
    with runtime.without_xla():
      saver = tf.train.Saver(max_to_keep=MAX_CHECKPOINTS,
                             save_relative_paths=True)
    hooks = _hooks(config, step, batch, start, is_new, saver, signals, cluster,
                   watch)
    if cluster.jobs:
      agreed = dict(_agreed(config), num_examples=num_examples,
                    mentornet_md5=mentornet_md5, TensorFlow=runtime.VERSION,
                    noise=noise.read_facts(config.data_dir))
      hooks.insert(0, servers.AgreementHook(
          cluster, agreed, lambda: signals.stop.received))
    with _explained(config, dataset, shards):
      try:
        _run(config, hooks, saver, step, cluster, server, watch, signals.stop)
      except servers.Stopped:  # The line is below.
        pass
      finally:
        signals.restore()

  stopped_by = signals.stop.received
  if server and cluster.is_chief and not stopped_by:
    servers.end(cluster, config, server)
  if not cluster.is_chief:
    log('stopped by %s; the same command joins again' % signal.Signals(
        stopped_by).name if stopped_by else 'training has ended')
    return 128 + stopped_by if stopped_by else 0
  last = checkpoints.last_step(config.train_log_dir)
  if stopped_by:
    log('stopped by %s at step %d, checkpoint saved; the same command goes on '
        'from there' % (signal.Signals(stopped_by).name, last))
    return 128 + stopped_by
  log('trained to step %d: %s' % (last, config.train_log_dir))
  return 0


# Settings that the tasks of a cluster need not share: what may change, but for
# the end, and where each finds its files.
_OWN = (config_lib.MAY_CHANGE - {'max_number_of_steps'}
        | {'data_dir', 'trained_mentornet_dir', 'loss_csv_file'})


def _agreed(config):
  """Name -> value of the settings that all tasks have to share."""
  return {name: value for name, value in config._asdict().items()
          if name not in _OWN}


@contextlib.contextmanager
def _explained(config, dataset, shards):
  """Says of an error in the block, in a line, what it means and what to do."""
  try:
    yield
  except (RunError, UserError):
    raise
  except Exception as error:
    goes_on = 'then the same command goes on from step %d in %s' % (
        checkpoints.last_step(config.train_log_dir), config.train_log_dir)
    cause = _cause(error, config, dataset, shards)
    if not cause:
      log('training ended by an error that nobody foresaw; mend it, %s'
          % goes_on)
      raise
    raise RunError('%s; %s' % (cause, goes_on))


def _cause(error, config, dataset, shards):
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
      shards, _ = datasets.check_files(
          dataset, 'train', [shard.path for shard in shards],
          config.max_bad_records)
      datasets.check_images(dataset, 'train', shards)
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


def _run(config, hooks, saver, step, cluster, server, watch, stop):
  """Runs steps until a hook says that it is enough."""
  scaffold = tf.train.Scaffold(saver=saver)
  settings = servers.session_config(cluster, config)
  with runtime.without_xla():
    if server is None:
      session = tf.train.MonitoredTrainingSession(
          master=config.master, is_chief=cluster.is_chief,
          checkpoint_dir=os.path.abspath(config.train_log_dir),
          scaffold=scaffold, hooks=hooks,
          save_checkpoint_secs=None, save_summaries_steps=None,
          save_summaries_secs=None, log_step_count_steps=None, config=settings)
    else:
      session = tf.train.MonitoredSession(servers.SessionCreator(
          cluster, watch, server.target, settings, config.train_log_dir,
          scaffold, lambda: stop.received), hooks)
    with session:
      while not session.should_stop():
        session.run(step.train_op)


def _hooks(config, step, batch, start, is_new, saver, signals, cluster, watch):
  """In an order in which a NaN is seen before anything is saved."""
  hooks = [
      SoundHook(step, config),
      EndHook(step, config.max_number_of_steps),
      ProgressHook(step, config.max_number_of_steps),
      signals,
  ]
  if step.sync_hook:
    hooks.append(step.sync_hook)
  if watch:
    hooks.append(WatchHook(watch))
  if not cluster.is_chief:  # The chief writes.
    return hooks
  if config.save_summaries_secs:
    hooks.append(SummaryHook(config, step, start))
  trace = None
  if config.loss_csv_file:
    trace = TraceHook(config, step, batch, is_new)
    hooks.append(trace)
  def wait():
    if watch:
      watch.wait_until_gone(cluster.workers[1:], lambda: signals.stop.received)
  return hooks + [CheckpointHook(config, saver, signals, trace, wait)]


class WatchHook(tf.train.SessionRunHook):
  """Tells the `cluster.Watch` of steps."""

  def __init__(self, watch):
    self._watch = watch

  def after_run(self, run_context, run_values):
    self._watch.stepped()


class SyncHook(tf.train.SessionRunHook):
  """What the session of synchronous training needs.

  As the hook that a tf.train.SyncReplicasOptimizer makes, except that the thread
  which takes the steps ends with the session: TensorFlow waits two minutes for
  it, and prints a stack.
  """

  def __init__(self, optimizer, cluster):
    """Creates the hook.

    Args:
      optimizer: a tf.train.SyncReplicasOptimizer that has been applied.
      cluster: a `cluster.Cluster`.
    """
    self._is_chief = cluster.is_chief
    self._initialize = (optimizer.chief_init_op if cluster.is_chief
                        else optimizer.local_step_init_op)
    # With a token a worker may go on to its next step.
    self._release = optimizer.get_init_tokens_op(cluster.num_workers)
    self._take_step, = optimizer.get_chief_queue_runner().enqueue_ops
    with tf.device(tf.train.get_global_step().device):
      mark = tf.Variable(True, trainable=False, collections=[],
                         name='has_had_a_chief')
    self._has_had_a_chief, self._mark = mark.is_initialized(), mark.initializer

  def after_create_session(self, session, coord):
    session.run(self._initialize)
    if not self._is_chief:
      return
    # Each worker takes its first step without a token. Tokens may be lost with a
    # chief; more of them would let one worker stand in for another.
    if session.run(self._has_had_a_chief):
      session.run(self._release)
    session.run(self._mark)
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent)
    for target, more in (self._take_steps, ()), (self._wake, (received,)):
      thread = threading.Thread(target=target, args=(session, coord) + more)
      thread.daemon = True
      thread.start()

  def _wake(self, session, coord, received):
    """Ends the waiting for other workers when a signal is to end the run.

    Python handles signals between two operations; this one may last for ever.
    """
    while True:
      number, = os.read(received, 1)
      if coord.should_stop():
        return
      if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
          session.run(self._release)

  def _take_steps(self, session, coord):
    """Takes a step whenever the gradients of all workers have come."""
    try:
      while not coord.should_stop():
        session.run(self._take_step)
    except Exception as error:  # pylint: disable=broad-except
      if not coord.should_stop():
        coord.request_stop(error)

  def end(self, session):
    if self._is_chief:  # Nobody is left waiting.
      session.run(self._release)


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
      self._sizes = noise.read_object(self._sizes_path, 'sizes of a file') or {}

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
    with files_lib.replaced(self._sizes_path) as f:
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
    self.stop = command.StopSignals()
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
