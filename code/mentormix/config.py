"""The settings of a run: one immutable value, checked, saved with the weights.

Entry scripts turn flags into a `TrainConfig`; training writes it as config.json
beside the checkpoints; evaluation reads it there, so nothing has to be said
twice. `settings` declares the fields. This module does not need TensorFlow: a
bad value stops a run before TensorFlow starts.
"""
import os
from typing import NamedTuple, Optional

from mentormix import files
from mentormix.eval_settings import EVAL_SETTINGS
from mentormix.messages import UserError
from mentormix.settings import (METHOD_SETTINGS, METHODS, SELECTIVE,
                                TRAIN_SETTINGS, WEIGHTED)

CONFIG_FILE = 'config.json'

# What config.json says beyond the settings: a value of each type.
STARTED = 'started'  # Seconds since 1970.
MENTORNET_MD5 = 'mentornet_md5'  # Of the files of --trained_mentornet_dir.
_FACTS = {STARTED: 0.0, MENTORNET_MD5: ''}
# Settings that name a file or directory, which has several names.
_PATHS = ('data_dir', 'train_log_dir', 'trained_mentornet_dir', 'loss_csv_file',
          'checkpoint_path')


def _config_type(name, settings, doc):
  """A NamedTuple whose fields are these settings, with their defaults."""
  config_type = NamedTuple(name, [
      (s.name, Optional[str] if s.default is None else type(s.default))
      for s in settings])
  config_type.__new__.__defaults__ = tuple(s.default for s in settings)
  config_type.__doc__ = doc
  return config_type


TrainConfig = _config_type(
    'TrainConfig', TRAIN_SETTINGS,
    'Everything that a training run depends on; fields are named as the flags.')
EvalConfig = _config_type(
    'EvalConfig', EVAL_SETTINGS,
    'Everything that an evaluation depends on; fields are named as the flags.')

MAY_CHANGE = frozenset(s.name for s in TRAIN_SETTINGS if s.may_change)


def unused_settings(method):
  """Names of the settings that other methods use and `method` does not."""
  every = set().union(*METHOD_SETTINGS.values())
  return every - set(METHOD_SETTINGS.get(method, ()))


def remembering(config):
  """The flag by which a run remembers single examples, in words, or ''.

  It remembers them by their position in --data_dir.
  """
  if config.method == 'elr':
    return '--method=elr'
  if config.method == 'mentormix' and config.first_pass_interval_epochs > 1:
    return f'--first_pass_interval_epochs={config.first_pass_interval_epochs}'
  return ''


def shared_by_tasks(config):
  """Name -> value of the settings that all tasks of a cluster must share."""
  return {s.name: getattr(config, s.name) for s in TRAIN_SETTINGS
          if s.name == 'max_number_of_steps'
          or not (s.may_change or s.per_task)}


def validate(config):
  """Checks a `TrainConfig`; UserError names the flag and its range."""
  require_given(config, 'data_dir', 'train_log_dir')
  for setting in TRAIN_SETTINGS:
    setting.check(getattr(config, setting.name))
  _require_plain(config, 'train_log_dir')
  if config.method in WEIGHTED:
    require_given(config, 'trained_mentornet_dir')
  if config.loss_csv_file and not config.loss_csv_file.endswith('.csv'):
    raise UserError(f'--loss_csv_file={config.loss_csv_file} must end in .csv')
  if config.loss_csv_file and config.method == 'mixup':
    raise UserError(f'--loss_csv_file={config.loss_csv_file}: --method=mixup '
                    'only has losses of mixed images; use another method')
  for name in ('weight_decay', 'dropout', 'bootstrap_beta'):
    if -1 < getattr(config, name) < 0:
      raise UserError(f'--{name}={getattr(config, name)} must be -1 or at '
                      'least 0')
  if config.batch_size % config.microbatches:
    raise UserError(f'--microbatches={config.microbatches} must divide '
                    f'--batch_size={config.batch_size}')
  validate_cluster(config)


def validate_cluster(config):
  """Checks the values of a `TrainConfig` that say which task this is."""
  for setting in TRAIN_SETTINGS:
    if setting.name in ('task', 'ps_tasks', 'cluster_timeout'):
      setting.check(getattr(config, setting.name))
  if config.ps_tasks:
    require_given(config, 'master')
  if config.task and not config.master:
    require_given(config, 'job_name')
  if config.sync_replicas and config.master:
    raise UserError('--sync_replicas cannot tell how many workers compute on '
                    f'--master={config.master}; give --ps_hosts and '
                    '--worker_hosts instead')


def validate_eval(config):
  """Checks every value of an `EvalConfig`, as `validate` does."""
  require_given(config, 'data_dir', 'checkpoint_dir', 'eval_dir')
  for setting in EVAL_SETTINGS:
    setting.check(getattr(config, setting.name))
  _require_plain(config, 'checkpoint_dir')
  if not os.path.isdir(config.data_dir):
    raise UserError(f'--data_dir={config.data_dir} is not a directory')


def _require_plain(config, name):
  """TensorFlow would treat such a name as a pattern for checkpoints."""
  value = getattr(config, name)
  if set('*?[]\\') & set(value):
    raise UserError(f'--{name}={value} must not contain any of *?[]\\')


def require_given(config, *names):
  """Raises UserError unless all of these settings have a value."""
  for name in names:
    if not getattr(config, name):
      raise UserError(f'--{name}= must be given')


def save(config, directory, **facts):
  """Writes config.json atomically.

  Args:
    config: a `TrainConfig`.
    directory: where to; an existing one.
    **facts: what else is known about the run, by `STARTED` and the like.
  """
  files.write_json(os.path.join(directory, CONFIG_FILE),
                   dict(config._asdict(), **facts))


def load(directory):
  """Reads the settings saved in `directory`.

  Returns:
    A dict, or None if there is no config.json. Settings of training, and the
    facts beside them, have the type of their default.

  Raises:
    UserError: the file does not hold such settings.
  """
  path = os.path.join(directory, CONFIG_FILE)
  what = 'the settings of a run'
  saved = files.read_object(path, what)
  if saved is None:
    return None
  for name, default in dict(TrainConfig()._asdict(), **_FACTS).items():
    if name in saved and not _is_like(saved[name], default):
      raise UserError(f'{path} does not hold {what} (see {name})')
  return saved


def _is_like(value, default):
  """Whether `value` can be that of a setting with this default."""
  types = (int, float) if isinstance(default, float) else (type(default),)
  return type(value) in types  # A bool is an int, but not a number.


def restore(directory):
  """The `TrainConfig` saved in `directory`.

  A setting that an earlier version did not save has its default.

  Raises:
    UserError: there is none, or it cannot be read.
  """
  path = os.path.join(directory, CONFIG_FILE)
  saved = load(directory)
  if saved is None:
    raise UserError(f'{path} does not exist; name the directory that a '
                    'training run has written')
  config = TrainConfig(**{name: value for name, value in saved.items()
                          if name in TrainConfig._fields})
  if config.method not in METHODS:
    raise UserError(f'{path}: the method {config.method} is unknown')
  return config


def check_resume(config, mentornet_md5='', flag='train_log_dir'):
  """Refuses to resume the run in `train_log_dir` with other settings.

  Args:
    config: a `TrainConfig`.
    mentornet_md5: of the files of its MentorNet.
    flag: the flag that names the directory.

  Returns:
    Lines that say which settings have changed; those may change.

  Raises:
    UserError: lists every setting that differs, with both values.
  """
  saved = load(config.train_log_dir) or {}
  if saved:  # An earlier version trained with what is now the default.
    saved = {**{name: value for name, value in TrainConfig()._asdict().items()
                if name not in MAY_CHANGE}, **saved}
  changed, differing = [], []
  may_change = set(MAY_CHANGE)
  if mentornet_md5 and saved.get(MENTORNET_MD5) == mentornet_md5:
    may_change.add('trained_mentornet_dir')  # The same files elsewhere.
  if os.path.isfile(config.loss_csv_file):
    may_change.add('loss_csv_file')  # As when a run was moved with it.
  for name, value in sorted(config._asdict().items()):
    if name in saved and saved[name] != value and not (
        name in _PATHS and all(map(os.path.exists, (saved[name], value)))
        and os.path.samefile(saved[name], value)):
      (changed if name in may_change else differing).append(
          f'--{name} is {saved[name]} there, {value} here')
  if saved.get(MENTORNET_MD5, mentornet_md5) != mentornet_md5:
    differing.append(
        f'--trained_mentornet_dir={config.trained_mentornet_dir} now holds '
        f'another MentorNet (md5 {mentornet_md5}, not {saved[MENTORNET_MD5]})')
  if differing:
    raise UserError(
        f'--{flag}={config.train_log_dir} holds a run with other '
        f'settings: {"; ".join(differing)}; repeat its settings, or name '
        'another directory')
  return changed


def resolve_eval(config):
  """Fills what the command line leaves open from the run's config.json.

  Args:
    config: an `EvalConfig`.

  Returns:
    (config, saved): what `load` finds there, {} if there is no config.json.

  Raises:
    UserError: the command line contradicts the run; the line has both values.
  """
  saved = load(config.checkpoint_dir) or {}
  filled = {}
  for name in ('dataset_name', 'studentnet'):
    here, there = getattr(config, name), saved.get(name)
    if here and there and here != there:
      raise UserError(f'--{name}={here}, but {config.checkpoint_dir} was '
                      f'trained with --{name}={there}')
    filled[name] = here or there or getattr(TrainConfig(), name)
  for name in ('image_size', 'image_recipe'):  # Tests may have others.
    filled[name] = (getattr(config, name) or saved.get(name)
                    or getattr(TrainConfig(), name))
  return config._replace(**filled), saved


def eval_of(config):
  """The `EvalConfig` of the evaluator in a cluster.

  It evaluates the checkpoints of a run on the directory val beside its
  --data_dir, and writes to the directory eval beside its --train_log_dir.

  Args:
    config: the `TrainConfig` of the run.

  Raises:
    UserError: there is no such directory val.
  """
  path = os.path.abspath(config.train_log_dir)
  parent, name = os.path.split(path)
  data_dir = os.path.join(os.path.dirname(os.path.abspath(config.data_dir)),
                          'val')
  if not os.path.isdir(data_dir):
    raise UserError(f'the evaluator expects the test set in {data_dir}, beside '
                    '--data_dir; run code/cifar_eval.py instead')
  wait = config.cluster_timeout  # The evaluator ends when training has ended.
  return EvalConfig(
      data_dir=data_dir, checkpoint_dir=path,
      eval_dir=(os.path.join(parent, 'eval') if name == 'train'
                else f'{path}-eval'),
      eval_interval_secs=config.save_interval_secs,
      timeout=wait and wait + 2 * config.save_interval_secs,
      max_bad_records=config.max_bad_records, device_id=config.device_id)
