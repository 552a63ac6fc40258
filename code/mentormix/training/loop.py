"""Training: the graph of one step, and the session that repeats it.

    batch -> method (mentormix_loss) -> mean + decay -> momentum -> averages

What a step changes, it changes once: weights, their averages, the moving
statistics, the mentors' loss averages, the global step.

With a cluster each worker runs this program on a graph of its own, whose
variables lie on the servers: all that a step changes is shared by the workers.
W is the number of workers.
"""
import math
import os
import signal
import time

from mentormix import checkpoints
from mentormix.cluster import roles
from mentormix.cluster import servers
from mentormix import config as config_lib
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.data import noise_facts
from mentormix.data import record_checks
from mentormix.mentornet import loading as mentornet_loading
from mentormix.messages import log
from mentormix.messages import UserError
from mentormix import precision
from mentormix import runtime
from mentormix.runtime import tf
from mentormix import sampling
from mentormix import schedules
from mentormix import students
from mentormix.training import failures
from mentormix.training import hooks as hooks_lib
from mentormix.training import step as step_lib

MAX_CHECKPOINTS = 5  # Kept on disk.


def train(config, cluster=roles.ALONE):
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
  slow = precision.check_precision(config.precision)
  if slow:
    log(slow)
  if config.sync_replicas and config.precision == 'mixed' and runtime.IS_1_15:
    raise UserError('--sync_replicas with --precision=mixed needs TensorFlow '
                    '2.x: the loss scaling of %s is of one worker'
                    % runtime.VERSION)
  network, mentornet_md5 = None, ''
  if config.method in config_lib.WEIGHTED:
    network = mentornet_loading.load(config.trained_mentornet_dir,
                             config.loss_p_percentile)
    mentornet_md5 = mentornet_loading.md5(config.trained_mentornet_dir)
  if cluster.is_chief:
    start, started = _resume(config, mentornet_md5)
  else:  # The chief looks after the directory.
    start, started = checkpoints.last_step(config.train_log_dir), None
  signals, server, watch = hooks_lib.SignalHook(), None, None
  if cluster.jobs:  # The others are to know that it is there, before it reads.
    server, watch = servers.start(cluster, config)
  shards, num_examples = record_checks.check_files(
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
    noise_facts.copy_facts(config.data_dir, config.train_log_dir)
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
    step = step_lib.build_step(config, dataset, num_examples, batch, network,
                      cluster=cluster)
    if has_clean_labels:
      step_lib.summarize_separation(step.v, tf.equal(batch.labels, batch.clean_labels))
    with runtime.without_xla():
      saver = tf.train.Saver(max_to_keep=MAX_CHECKPOINTS,
                             save_relative_paths=True)
    hooks = _hooks(config, step, batch, start, is_new, saver, signals, cluster,
                   watch)
    if cluster.jobs:
      agreed = dict(_agreed(config), num_examples=num_examples,
                    mentornet_md5=mentornet_md5, TensorFlow=runtime.VERSION,
                    noise=noise_facts.read_facts(config.data_dir))
      hooks.insert(0, servers.AgreementHook(
          cluster, agreed, lambda: signals.stop.received))
    with failures.explained(config, dataset, shards):
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
  noise_facts.check_same(config.data_dir, config.train_log_dir)
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
      hooks_lib.SoundHook(step, config),
      hooks_lib.EndHook(step, config.max_number_of_steps),
      hooks_lib.ProgressHook(step, config.max_number_of_steps),
      signals,
  ]
  if step.sync_hook:
    hooks.append(step.sync_hook)
  if watch:
    hooks.append(hooks_lib.WatchHook(watch))
  if not cluster.is_chief:  # The chief writes.
    return hooks
  if config.save_summaries_secs:
    hooks.append(hooks_lib.SummaryHook(config, step, start))
  trace = None
  if config.loss_csv_file:
    trace = hooks_lib.TraceHook(config, step, batch, is_new)
    hooks.append(trace)
  def wait():
    if watch:
      watch.wait_until_gone(cluster.workers[1:], lambda: signals.stop.received)
  return hooks + [hooks_lib.CheckpointHook(config, saver, signals, trace, wait)]
