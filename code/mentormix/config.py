"""The settings of a run: one immutable value, checked, saved with the weights.

Entry scripts turn flags into a `TrainConfig`; training writes it as config.json
beside the checkpoints; evaluation reads it there, so nothing is said twice. No
TensorFlow here: a bad value stops a run before TensorFlow starts.
"""
import collections
import json
import os

from mentormix.data import noise
from mentormix import files
from mentormix.messages import UserError

CONFIG_FILE = 'config.json'

_WEIGHTING = ('trained_mentornet_dir', 'loss_p_percentile', 'burn_in_epoch',
              'example_dropout_rates')

# Method -> the settings that it uses and some other method does not.
METHOD_SETTINGS = collections.OrderedDict((
    ('cross_entropy', ()),
    ('mixup', ('mixup_alpha',)),
    ('mentornet', _WEIGHTING),
    ('mentormix', _WEIGHTING + ('mixup_alpha', 'second_reweight')),
))
METHODS = tuple(METHOD_SETTINGS)
PRECISIONS = ('float32', 'mixed')
WEIGHTED = ('mentornet', 'mentormix')  # Those that need a MentorNet.


def unused_settings(method):
  """Names of the settings that other methods use and `method` does not."""
  every = set().union(*METHOD_SETTINGS.values())
  return every - set(METHOD_SETTINGS.get(method, ()))


_TRAIN_DEFAULTS = (
    # As published.
    ('batch_size', 128),
    ('master', ''),
    ('data_dir', ''),
    ('train_log_dir', ''),
    ('dataset_name', 'cifar100'),
    ('studentnet', 'resnet32'),
    ('learning_rate', 0.1),
    ('learning_rate_decay_factor', 0.9),
    ('num_epochs_per_decay', 3.0),
    ('save_summaries_secs', 120),
    ('save_interval_secs', 1200),
    ('max_number_of_steps', 100000),
    ('ps_tasks', 0),
    ('task', 0),
    ('device_id', '0'),
    ('trained_mentornet_dir', ''),
    ('example_dropout_rates', '0.0,100'),
    ('burn_in_epoch', 0),
    ('loss_p_percentile', 0.7),
    ('mixup_alpha', 8.0),
    ('second_reweight', True),
    # Ours.
    ('method', 'mentormix'),
    ('seed', 0),
    ('num_readers', 4),
    ('num_preprocessing_threads', 1),
    ('loss_csv_file', ''),
    ('precision', 'float32'),
    ('xla', False),
    ('max_bad_records', 0),
    ('warmup_steps', 0),
    ('job_name', ''),
    ('ps_hosts', ''),
    ('worker_hosts', ''),
    ('listen_on_all_interfaces', False),
    ('cluster_timeout', 600),
    ('sync_replicas', False),
)

_EVAL_DEFAULTS = (
    # As published; None: what the run was trained with.
    ('batch_size', 25),
    ('master', ''),
    ('data_dir', ''),
    ('dataset_name', None),
    ('studentnet', None),
    ('split_name', 'test'),
    ('checkpoint_dir', ''),
    ('eval_dir', ''),
    ('eval_interval_secs', 600),
    ('output_csv_file', ''),
    ('device_id', '0'),
    # Ours.
    ('once', False),
    ('timeout', 0),
    ('max_bad_records', 0),
)

# What config.json says of a run beyond its settings, with a value of its type.
STARTED = 'started'  # Seconds since 1970.
MENTORNET_MD5 = 'mentornet_md5'  # Of the files of --trained_mentornet_dir.
_FACTS = ((STARTED, 0.0), (MENTORNET_MD5, ''))
_END_OF_TIME = 253402300800  # The year 10000, where calendars end.


def _fields(defaults):
  names, values = zip(*defaults)
  return dict(field_names=names, defaults=values)


class TrainConfig(collections.namedtuple(
    'TrainConfig', **_fields(_TRAIN_DEFAULTS))):
  """Everything a training run depends on; named as its flags are."""
  __slots__ = ()


class EvalConfig(collections.namedtuple(
    'EvalConfig', **_fields(_EVAL_DEFAULTS))):
  """Everything an evaluation depends on; named as its flags are."""
  __slots__ = ()


# What may differ when a run goes on: it does not change what is being trained,
# but for the number of steps, by which the epoch percentage goes, and for
# records that have been damaged since.
MAY_CHANGE = frozenset([
    'train_log_dir', 'max_number_of_steps', 'save_summaries_secs',
    'save_interval_secs', 'num_readers', 'num_preprocessing_threads', 'master',
    'ps_tasks', 'task', 'device_id', 'xla', 'max_bad_records', 'job_name',
    'ps_hosts', 'worker_hosts', 'listen_on_all_interfaces', 'cluster_timeout'])

_AT_LEAST_ONE = ('batch_size', 'max_number_of_steps', 'num_readers',
                 'num_preprocessing_threads', 'save_interval_secs')
_AT_LEAST_ZERO = ('save_summaries_secs', 'mixup_alpha', 'seed',
                  'max_bad_records', 'warmup_steps')
_LARGEST = 2**31 - 1  # Of a whole number, but for the seed.
_POSITIVE = ('learning_rate', 'learning_rate_decay_factor',
             'num_epochs_per_decay')


def validate(config):
  """Checks every value on its own; UserError names the flag and its range.

  Args:
    config: a `TrainConfig`.
  """
  require_given(config, 'data_dir', 'train_log_dir')
  _require(config, 'method', config.method in METHODS,
           'one of %s' % ', '.join(METHODS))
  _require(config, 'precision', config.precision in PRECISIONS,
           'one of %s' % ', '.join(PRECISIONS))
  _require_bounded(config)
  for name in _AT_LEAST_ONE:
    _require(config, name, getattr(config, name) >= 1, 'at least 1')
  for name in _AT_LEAST_ZERO:
    _require(config, name, 0 <= getattr(config, name) < float('inf'),
             'at least 0')
  for name in _POSITIVE:
    _require(config, name, 0 < getattr(config, name) < float('inf'), 'above 0')
  _require(config, 'loss_p_percentile', 0 <= config.loss_p_percentile <= 1,
           'between 0 and 1')
  _require(config, 'burn_in_epoch', 0 <= config.burn_in_epoch <= 100,
           'between 0 and 100, in percent of the training')
  _require_plain(config, 'train_log_dir')
  if config.method in WEIGHTED:
    require_given(config, 'trained_mentornet_dir')
  if config.loss_csv_file and not config.loss_csv_file.endswith('.csv'):
    raise UserError('--loss_csv_file=%s must end in .csv'
                    % config.loss_csv_file)
  if config.loss_csv_file and config.method == 'mixup':
    raise UserError('--loss_csv_file=%s: --method=mixup only has losses of '
                    'mixed images; take another method' % config.loss_csv_file)
  validate_cluster(config)


def validate_cluster(config):
  """Checks the values that say what task of which cluster this is.

  Args:
    config: a `TrainConfig`.
  """
  for name in ('task', 'ps_tasks', 'cluster_timeout'):
    _require(config, name, 0 <= getattr(config, name) <= _LARGEST, 'from 0 to %d'
             % _LARGEST)
  if config.ps_tasks:
    require_given(config, 'master')
  if config.task and not config.master:
    require_given(config, 'job_name')
  if config.sync_replicas and config.master:
    raise UserError('--sync_replicas: how many workers compute in --master=%s '
                    'is not known; give --ps_hosts and --worker_hosts instead'
                    % config.master)


def validate_eval(config):
  """As `validate`, for an `EvalConfig`."""
  require_given(config, 'data_dir', 'checkpoint_dir', 'eval_dir')
  _require_bounded(config)
  _require_plain(config, 'checkpoint_dir')
  _require(config, 'batch_size', config.batch_size >= 1, 'at least 1')
  _require(config, 'eval_interval_secs', config.eval_interval_secs >= 1,
           'at least 1')
  for name in ('timeout', 'max_bad_records'):
    _require(config, name, getattr(config, name) >= 0, 'at least 0')
  _require(config, 'split_name', config.split_name in ('test', 'train'),
           'test or train')
  if not os.path.isdir(config.data_dir):
    raise UserError('--data_dir=%s is not a directory' % config.data_dir)


def _require_bounded(config):
  for name, value in config._asdict().items():
    if isinstance(value, int):
      largest = noise.MAX_SEED if name == 'seed' else _LARGEST
      _require(config, name, value <= largest, 'at most %d' % largest)


def _require_plain(config, name):
  """TensorFlow would look for checkpoints that fit the pattern."""
  _require(config, name, not set('*?[]\\') & set(getattr(config, name)),
           'without any of *?[]\\')


def _require(config, name, condition, what):
  if not condition:
    raise UserError('--%s=%s must be %s' % (name, getattr(config, name), what))


def require_given(config, *names):
  """Raises UserError unless all of these settings have a value."""
  for name in names:
    _require(config, name, getattr(config, name), 'given')


def save(config, directory, **facts):
  """Writes `directory`/config.json, whole or not at all.

  Args:
    config: a `TrainConfig`.
    directory: an existing one.
    **facts: what else is known about the run, by `STARTED` and the like.
  """
  with files.replaced(os.path.join(directory, CONFIG_FILE)) as f:
    json.dump(dict(config._asdict(), **facts), f, indent=2, sort_keys=True)
    f.write('\n')


def load(directory):
  """The settings saved in `directory` as a dict, or None where there are none.

  Those that are settings of training have the type of their default, and so
  have the facts beside them.

  Raises:
    UserError: the file is there but does not hold such settings.
  """
  path = os.path.join(directory, CONFIG_FILE)
  what = 'the settings of a run'
  saved = files.read_object(path, what)
  for name, default in tuple(TrainConfig()._asdict().items()) + _FACTS:
    if saved and name in saved and not _is_like(saved[name], default):
      raise UserError('%s does not hold %s (see %s)' % (path, what, name))
  if saved and not 0 <= saved.get(STARTED, 0) < _END_OF_TIME:
    raise UserError('%s does not hold %s (see %s)' % (path, what, STARTED))
  return saved


def _is_like(value, default):
  """Whether `value` can be that of a setting with this default."""
  if isinstance(default, float):
    return type(value) in (int, float)  # pylint: disable=unidiomatic-typecheck
  if isinstance(default, str) and isinstance(value, str):
    try:
      return b'\0' not in os.fsencode(value)  # Most of them name files.
    except UnicodeEncodeError:
      return False
  # A bool is an int, but not a number.
  return type(value) is type(default)  # pylint: disable=unidiomatic-typecheck


def restore(directory):
  """The `TrainConfig` saved in `directory`.

  What an earlier version did not save has its default.

  Raises:
    UserError: there is none, or one of its settings is none.
  """
  path = os.path.join(directory, CONFIG_FILE)
  saved = load(directory)
  if saved is None:
    raise UserError('%s is not there; give the --train_log_dir of a run' % path)
  settings = TrainConfig()._asdict()
  if 'train_log_dir' not in saved:
    raise UserError('%s does not hold the settings of a run (see train_log_dir)'
                    % path)
  settings.update((name, saved[name]) for name in settings if name in saved)
  if settings['method'] not in METHODS:
    raise UserError('%s: the method %s is unknown' % (path, settings['method']))
  return TrainConfig(**settings)


def check_resume(config, mentornet_md5='', flag='train_log_dir'):
  """Refuses to go on with a run in `train_log_dir` under other settings.

  Args:
    config: a `TrainConfig`.
    mentornet_md5: of the files of its MentorNet.
    flag: the flag that names the directory.

  Returns:
    What has changed and may, as lines.

  Raises:
    UserError: lists every setting that differs, with both values.
  """
  saved = load(config.train_log_dir)
  changed, differing = [], []
  for name, value in sorted(config._asdict().items()):
    if saved and name in saved and saved[name] != value:
      (changed if name in MAY_CHANGE else differing).append(
          '--%s is %s there, %s here' % (name, saved[name], value))
  if saved and saved.get(MENTORNET_MD5, mentornet_md5) != mentornet_md5:
    differing.append(
        '--trained_mentornet_dir=%s holds another MentorNet now (md5 %s, not '
        '%s)' % (config.trained_mentornet_dir, mentornet_md5,
                 saved[MENTORNET_MD5]))
  if differing:
    raise UserError(
        '--%s=%s holds a run with other settings: %s; repeat its settings, or '
        'name another directory'
        % (flag, config.train_log_dir, '; '.join(differing)))
  return changed


def resolve_eval(config):
  """Fills what the command line leaves open from the run's config.json.

  Args:
    config: an `EvalConfig`.

  Returns:
    (config, saved): what `load` finds there, {} where no config.json is.

  Raises:
    UserError: the command line contradicts the run; the line has both values.
  """
  saved = load(config.checkpoint_dir) or {}
  filled = {}
  for name in ('dataset_name', 'studentnet'):
    here, there = getattr(config, name), saved.get(name)
    if here and there and here != there:
      raise UserError('--%s=%s, but %s was trained with --%s=%s' % (
          name, here, config.checkpoint_dir, name, there))
    filled[name] = here or there or getattr(TrainConfig(), name)
  return config._replace(**filled), saved
