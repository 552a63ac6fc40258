"""Training: load what is there, build the graph, run steps.

`train` is what cifar_train_mentormix.py calls.
"""
import math
import signal
import time
from typing import Any, Callable, NamedTuple, Optional

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import precision
from mentormix import runtime
from mentormix import sampling
from mentormix import schedules
from mentormix import students
from mentormix.cluster import roles
from mentormix.cluster import servers
from mentormix.cluster import task as task_lib
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.data import noise_facts
from mentormix.data import splits
from mentormix.mentornet import loading
from mentormix.messages import log, UserError
from mentormix.runtime import tf
from mentormix.training import failures
from mentormix.training import finetuning
from mentormix.training import hooks as hooks_lib
from mentormix.training import step as step_lib

MAX_CHECKPOINTS = 5  # Kept on disk, if they are saved by time.
# With 0, which also keeps all, the list would name only the last of them.
_ALL_CHECKPOINTS = 2**31 - 1


class Run(NamedTuple):
  """What a run starts from."""
  data: Any  # A `splits.Split`.
  has_clean_labels: bool
  network: Optional[Callable]  # The MentorNet, features [B, 4] -> v [B].
  mentornet_md5: str  # Of its files; '' for methods without a MentorNet.
  start: int  # The step to resume from, 0 for a new run.
  started: Optional[float]  # When the run first started; None for a new run.
  source: Optional[Any]  # The `finetuning.Source` of a new run, if it has one.


def train(config, cluster=roles.ALONE):
  """Trains to `max_number_of_steps`, from where the directory left off.

  Args:
    config: a `config.TrainConfig`, validated.
    cluster: a `roles.Cluster`; this process is one of its workers.

  Returns:
    0, or 128 + n if signal n ended the run, after a checkpoint.

  Raises:
    UserError: the data, the MentorNet or the directory do not fit together;
      nothing was started.
    RunError: the run cannot continue.
  """
  task = task_lib.Task(config, cluster)
  run = _load(config, task)
  if run.start >= config.max_number_of_steps:
    log(f'{config.train_log_dir} is already at step {run.start} of '
        f'{config.max_number_of_steps}')
    task.end()
    return 0
  with tf.Graph().as_default(), tf.device(task.placement):
    step, saver, hooks = _build(config, run, task)
    scaffold = _scaffold(config, run, saver, task)
    with failures.explained(config, run.data):
      _run(step, scaffold, hooks, task)
  return _outcome(config, task)


def _load(config, task):
  """Checks and reads everything that does not need a graph; gives a `Run`."""
  runtime.select_device(config.device_id)
  # These two raise for a wrong flag.
  dataset = splits.dataset(
      config.dataset_name, config.data_dir, students.get(config.studentnet),
      config.image_size)
  students.check_size(config.studentnet, dataset.image_size, config.first_pass)
  schedules.dropout_table(config.example_dropout_rates)
  if config.learning_rate_schedule == 'steps':
    schedules.decay_epochs(config.decay_epochs)
  precision.check_precision(config.precision)
  if config.sync_replicas and config.precision == 'mixed' and runtime.IS_1_15:
    raise UserError('--sync_replicas with --precision=mixed needs TensorFlow '
                    f'2.x: TensorFlow {runtime.VERSION} scales the loss for '
                    'one worker only')
  if config.augmentation != 'published' and dataset.photographs:
    raise UserError(f'--augmentation={config.augmentation} is for small '
                    'images; for photographs, give --image_recipe')
  remembering = config_lib.remembering(config)
  if remembering and (task.cluster.jobs or config.master):
    raise UserError(f'{remembering} remembers the examples by their position '
                    'in --data_dir, so it trains in one process; leave out the '
                    'cluster or --master, or give another value')
  network, md5 = None, ''
  if config.method in config_lib.WEIGHTED:
    network = loading.load(config.trained_mentornet_dir,
                           config.loss_p_percentile)
    md5 = loading.md5(config.trained_mentornet_dir)
  if task.is_chief:
    start, started = _resume(config, md5)
  else:  # Only the chief changes the directory.
    start, started = checkpoints.last_step(config.train_log_dir), None
  source = None
  if task.is_chief and started is None:
    source = finetuning.find(config)
  task.start()  # Before reading, so that the others see this task soon.
  data = splits.find(dataset, 'train', config.data_dir, config.image_recipe,
                     config.max_bad_records)
  if remembering and not input_pipeline.fits_in_memory(
      data.dataset, data.count):
    raise UserError(f'{remembering} remembers the examples by their position, '
                    f'but --data_dir={config.data_dir} holds photographs or '
                    'more than fits into memory; give another value')
  run = Run(data, datasets.has_clean_labels(data.shards), network, md5, start,
            started, source)
  if config.loss_csv_file and not run.has_clean_labels:
    raise UserError(f'--loss_csv_file={config.loss_csv_file}: the clean labels '
                    f'of --data_dir={config.data_dir} are not known')
  if task.is_chief:
    _save_settings(config, run)
  return run


def _resume(config, mentornet_md5):
  """Returns (start, started) as in `Run`, if the run may resume."""
  if not checkpoints.are_there(config.train_log_dir):
    return 0, None  # Settings of a start that failed do not count.
  saved = config_lib.load(config.train_log_dir)
  if saved is None:
    raise UserError(f'--train_log_dir={config.train_log_dir} holds checkpoints '
                    'but no config.json, so it is not known which run they '
                    'belong to; name another directory')
  changes = config_lib.check_resume(config, mentornet_md5)
  noise_facts.check_same(config.data_dir, config.train_log_dir,
                         saved.get('data_dir', config.data_dir))
  start, lines = checkpoints.recover(config.train_log_dir)
  for line in lines:
    log(line)
  if start is None:
    return 0, None
  for change in changes:
    log(f'resuming with a changed setting: {change}')
  if config.checkpoint_path:
    log(f'the run resumes, so --checkpoint_path={config.checkpoint_path} is '
        'ignored')
  return start, saved.get(config_lib.STARTED, 0.0)


def _save_settings(config, run):
  """Writes config.json and noise.json into the directory of the run."""
  # In whole seconds, as in results.csv, and not before a row of another run.
  started = math.ceil(time.time()) if run.started is None else run.started
  if run.started is not None:  # What it began with counts.
    began = config_lib.restore(config.train_log_dir)
    config = config._replace(checkpoint_path=began.checkpoint_path)
  config_lib.save(config, config.train_log_dir, **{
      config_lib.STARTED: float(started),
      config_lib.MENTORNET_MD5: run.mentornet_md5})
  noise_facts.copy_facts(config.data_dir, config.train_log_dir)


def _build(config, run, task):
  """Adds input and step to the graph; returns (step, saver, hooks)."""
  cluster = task.cluster
  who = ('a new run' if not run.start else f'from step {run.start}'
         ) if task.is_chief else f'worker {cluster.worker}'
  log(f'TensorFlow {runtime.VERSION}: {config.method}, {config.studentnet} in '
      f'{config.precision} precision on {config.data_dir}, {run.data.count} '
      f'examples, {who}')
  task.install_signals()
  # Of the initial weights and of the order of files.
  tf.set_random_seed(sampling.worker_seed(config.seed, cluster.worker))
  used = tf.train.get_or_create_global_step()  # Batches that this worker used.
  if cluster.num_workers > 1 and not config.sync_replicas:
    used = used // cluster.num_workers
  options = dict(light=config.augmentation == 'light')
  if config_lib.remembering(config):
    options['with_indices'] = True
  batch = run.data.train_batch(
      config.batch_size, seed=config.seed, start=used,
      num_readers=config.num_readers,
      num_threads=config.num_preprocessing_threads, worker=cluster.worker,
      num_workers=cluster.num_workers, device=task.device,
      in_memory=not config.master, **options)
  step = step_lib.build_step(config, run.data.dataset, run.data.count, batch,
                             run.network, cluster=cluster)
  if run.has_clean_labels:
    step_lib.summarize_separation(
        step.v, tf.equal(batch.labels, batch.clean_labels))
  with runtime.without_xla():
    saver = tf.train.Saver(
        max_to_keep=(_ALL_CHECKPOINTS if config.save_interval_steps
                     else MAX_CHECKPOINTS),
        save_relative_paths=True)
  hooks = _hooks(config, run, step, batch, saver, task)
  if cluster.jobs:
    hooks = task.hooks(dict(
        config_lib.shared_by_tasks(config), num_examples=run.data.count,
        mentornet_md5=run.mentornet_md5, TensorFlow=runtime.VERSION,
        noise=noise_facts.read_facts(config.data_dir))) + hooks
  return step, saver, hooks


def _scaffold(config, run, saver, task):
  """What initializes or restores the variables, a tf.train.Scaffold."""
  fed = None
  if task.is_chief and run.started is None:
    fed = finetuning.initial(config, run.source, run.data)
  return tf.train.Scaffold(init_feed_dict=fed, saver=saver)


def _hooks(config, run, step, batch, saver, task):
  """Returns the hooks, in an order that sees a NaN before it is saved."""
  directory, is_new = config.train_log_dir, run.started is None
  hooks = [
      hooks_lib.NanHook(step, config.learning_rate, directory),
      hooks_lib.EndHook(step, config.max_number_of_steps),
      hooks_lib.ProgressHook(step, config.max_number_of_steps),
      hooks_lib.SignalHook(task.signals),
  ]
  hooks += [step.sync_hook] if step.sync_hook else []
  if not task.is_chief:  # Only the chief writes.
    return hooks
  if config.save_summaries_secs:
    hooks.append(hooks_lib.SummaryHook(
        step, directory, config.save_summaries_secs, is_new=not run.start))
  trace = None
  if config.loss_csv_file:
    trace = hooks_lib.TraceHook(
        step, batch, config.loss_csv_file, directory,
        config.max_number_of_steps * config.batch_size, is_new)
    hooks.append(trace)
  return hooks + [hooks_lib.CheckpointHook(
      saver, step, directory, config.save_interval_secs,
      config.save_interval_steps, task.signals, trace, task.wait_for_workers)]


def _run(step, scaffold, hooks, task):
  """Runs steps until a hook ends the session."""
  try:
    with runtime.without_xla(), task.session(scaffold, hooks) as session:
      while not session.should_stop():
        session.run(step.train_op)
  except servers.Stopped:  # `_outcome` reports it.
    pass
  finally:
    task.signals.restore()


def _outcome(config, task):
  """Reports how the run ended; returns the exit code."""
  last = checkpoints.last_step(config.train_log_dir)
  number = task.signals.stopped_by
  if not number:
    task.end()
    log(f'trained to step {last}: {config.train_log_dir}' if task.is_chief
        else 'training has ended')
    return 0
  log(f'stopped by {signal.Signals(number).name}' + (
      f' at step {last}, checkpoint saved; rerun the same command to resume'
      if task.is_chief else '; rerun the same command to join again'))
  return 128 + number
