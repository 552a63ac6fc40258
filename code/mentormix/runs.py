"""Training runs on disk: what was asked of them, how far and how well they got.

    RUN/train/config.json, noise.json, checkpoint, events.out.tfevents.*
    RUN/eval/results.csv
    RUN/*.txt                 logs
    RUN/scores/summary.json   how well the loss ranks the labels

`read` finds runs; `group` puts together those that differ in their seed only.
What a run does not have is empty here; what is damaged is an error that names
the file.
"""
import collections
import glob
import json
import os
import re
import statistics

from mentormix import config as config_lib
from mentormix import noise as noise_lib
from mentormix import results as results_lib
from mentormix.command import UserError

FINISHED, FAILED = 'finished', 'failed'
UNFINISHED, NO_RESULTS = 'unfinished', 'no results'

TAGS = ('v/clean', 'v/noisy', 'v/precision', 'v/recall')  # Of the summaries.
SCORES = ('step', 'count', 'auc', 'average_precision', 'num_suspected',
          'precision', 'recall', 'noise_rate')

# Two runs that differ in these only are of one group. The directory of the data
# stands for the data set and its noise.
_OF_NO_WEIGHT = (config_lib.MAY_CHANGE - {'max_number_of_steps'}
                 | {'seed', 'data_dir', 'loss_csv_file'})


class Noise(collections.namedtuple('Noise', 'kind level name')):
  """What is wrong with the labels that a run was trained on.

  Attributes:
    kind: the definition, as in noise.json; None where it is not recorded.
    level: the rate asked, or where none was asked the rate realised; None where
      neither is known.
    name: kind and level in words.
  """
  __slots__ = ()


class Task(collections.namedtuple('Task', 'dataset noise student steps')):
  """What runs have to share for their figures to be compared.

  Attributes:
    dataset: its name.
    noise: a `Noise`.
    student: name of the student.
    steps: the number of steps to train.
  """
  __slots__ = ()


class Run(collections.namedtuple(
    'Run', 'path config task results series scores step state message')):
  """One training run.

  Attributes:
    path: its directory.
    config: a `config.TrainConfig`.
    task: a `Task`.
    results: its `results.Result`s, by step.
    series: tag -> (steps, values) of its summaries, for those of TAGS it has.
    scores: what its summary.json says, a dict; None without one.
    step: the last step that is saved or evaluated.
    state: FINISHED, FAILED, UNFINISHED or NO_RESULTS.
    message: why it failed, a line; '' if it did not.
  """
  __slots__ = ()

  @property
  def last(self):
    """Accuracy of the last checkpoint in percent, as the next two."""
    return 100 * self.results[-1].top1

  @property
  def peak(self):
    return 100 * max(r.top1 for r in self.results)

  def median(self, k):
    """Of the last `k` checkpoints, or of all where they are fewer."""
    return 100 * statistics.median(r.top1 for r in self.results[-k:])


class Figure(collections.namedtuple('Figure', 'mean deviation n')):
  """Mean and sample standard deviation of n runs; None for that of one."""
  __slots__ = ()

  def __str__(self):
    if self.deviation is None:
      return '%.2f' % self.mean
    return '%.2f ± %.2f' % (self.mean, self.deviation)


class Group(collections.namedtuple(
    'Group', 'task method label settings runs left_out')):
  """Finished runs that differ in their seed only.

  Attributes:
    task: a `Task`.
    method: one of config.METHODS.
    label: the method, and what sets the group apart from others of the same
      task and method.
    settings: name -> value of the settings that the method uses.
    runs: a list of `Run`s.
    left_out: number of runs with these settings that are not finished.
  """
  __slots__ = ()

  @property
  def last(self):
    return _figure([run.last for run in self.runs])

  @property
  def peak(self):
    return _figure([run.peak for run in self.runs])

  def median(self, k):
    return _figure([run.median(k) for run in self.runs])


def _figure(values):
  deviation = statistics.stdev(values) if len(values) > 1 else None
  return Figure(statistics.mean(values), deviation, len(values))


def read(directories):
  """Reads the runs in and below some directories.

  Args:
    directories: paths; what is found twice counts once.

  Returns:
    A list of `Run`s in the order of their paths.

  Raises:
    UserError: a directory holds no run, a file is damaged, or no run has been
      evaluated.
  """
  found = {}
  for directory in directories:
    if not os.path.isdir(directory):
      raise UserError('--runs: %s is not a directory' % directory)
    below = [folder for folder, _, names in os.walk(directory)
             if config_lib.CONFIG_FILE in names]
    if not below:
      raise UserError('--runs: %s holds no run: there is no %s in or below it'
                      % (directory, config_lib.CONFIG_FILE))
    for train_dir in below:
      found.setdefault(os.path.realpath(train_dir), train_dir)
  runs = [_read_run(train_dir) for train_dir in sorted(found.values())]
  if not any(run.results for run in runs):
    raise UserError(
        '--runs=%s: no run has results; evaluate them with cifar_eval.py'
        % ','.join(directories))
  return runs


def _read_run(train_dir):
  """The `Run` whose config.json is in `train_dir`."""
  config = config_lib.restore(train_dir)
  parent = os.path.normpath(os.path.join(train_dir, os.pardir))
  folders = [train_dir]
  # With other runs beside it, nobody knows whose the parent's files are.
  if len(_find([parent], '*/' + config_lib.CONFIG_FILE)) == 1:
    folders.append(parent)
  results = _read_results(folders)
  step = max([_saved_step(train_dir)] + [r.step for r in results])
  message = ''
  if results and results[-1].step >= config.max_number_of_steps:
    state = FINISHED
  else:
    message = _failure(folders)
    state = (FAILED if message else UNFINISHED if results else NO_RESULTS)
  of_its_own = os.path.basename(os.path.abspath(train_dir)) == 'train'
  return Run(
      path=parent if of_its_own else train_dir,
      config=config,
      task=Task(config.dataset_name, _read_noise(train_dir, config.data_dir),
                config.studentnet, config.max_number_of_steps),
      results=results, series=_read_series(train_dir),
      scores=_read_scores(folders), step=step, state=state, message=message)


def _find(folders, pattern):
  """The paths that match in the first folder where any does, sorted."""
  for folder in folders:
    found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if found:
      return found
  return []


def _read_noise(train_dir, data_dir):
  """The `Noise` by noise.json, or else by the name of the data's directory."""
  name = os.path.basename(os.path.normpath(data_dir))
  facts = noise_lib.read_facts(train_dir)
  if facts is None:
    if re.match(r'(0(\.\d+)?|1(\.0+)?)$', name):
      return Noise(None, float(name), '%g%%, definition not recorded'
                   % (100 * float(name)))
    return Noise(None, None, '%s, noise not recorded' % name)
  kind, asked, realised = [
      facts.get(key) for key in ('noise_type', 'rate_asked', 'rate_realised')]
  if not (kind in noise_lib.DEFINITIONS if isinstance(kind, str) else
          kind is None) or not all(_is_rate(x) for x in (asked, realised)):
    raise UserError('%s does not hold kind and rate of the noise'
                    % os.path.join(train_dir, noise_lib.FACTS_FILE))
  if kind is None:
    return Noise('none', realised, '%s, no noise added' % name)
  if asked is not None:
    return Noise(kind, asked, '%g%% %s' % (100 * asked, kind))
  rate = 'rate not known' if realised is None else '%.1f%%' % (100 * realised)
  return Noise(kind, realised, '%s (%s)' % (name, rate))


def _is_rate(value):
  return value is None or isinstance(value, (int, float)) and 0 <= value <= 1


def _read_results(folders):
  """The rows of results.csv by step; of several files that of `eval` counts."""
  paths = _find(folders, '*/' + results_lib.FILE)
  if not paths:
    return []
  path = min(paths, key=lambda path: (
      os.path.basename(os.path.dirname(path)) != 'eval', path))
  return sorted({r.step: r for r in results_lib.read(path)}.values())


def _saved_step(train_dir):
  """The step of the latest checkpoint, 0 without one."""
  path = os.path.join(train_dir, 'checkpoint')
  if not os.path.isfile(path):
    return 0
  with open(path, encoding='utf-8', errors='replace') as f:
    step = re.search(r'-(\d+)"', f.readline())
  return int(step.group(1)) if step else 0


def _failure(folders):
  """The last line of the first log that ends with an error; '' if none does."""
  for folder in folders:
    for path in _find([folder], '*.txt'):
      with open(path, encoding='utf-8', errors='replace') as f:
        lines = [line.strip() for line in f if line.strip()]
      traceback = False
      for line in lines:  # What is logged after a traceback ends it.
        traceback = (line.startswith('Traceback (most recent call last)')
                     or traceback and not re.match(r'\d{4}-\d\d-\d\d ', line))
      if lines and (traceback or ': error: ' in lines[-1]):
        return lines[-1]
  return ''


def _read_scores(folders):
  """What summary.json says, None without one."""
  paths = _find(folders, 'scores/summary.json')
  if not paths:
    return None
  try:
    with open(paths[0]) as f:
      scores = json.load(f)
    for key in SCORES:
      if not (scores[key] is None or isinstance(scores[key], (int, float))
              and 0 <= scores[key] < float('inf')):
        raise ValueError('%s is %r' % (key, scores[key]))
  except (OSError, ValueError, TypeError) as error:
    raise UserError('%s cannot be read: %s' % (paths[0], error))
  except KeyError as error:
    raise UserError('%s lacks %s' % (paths[0], error))
  return scores


def _read_series(train_dir):
  """Tag -> (steps, values) of the summaries, for those of TAGS there are."""
  series = collections.defaultdict(dict)
  for path in _find([train_dir], 'events.out.tfevents.*'):
    if not os.path.isfile(path):
      continue
    for tag, points in _read_events(path).items():
      # A run that goes on does so from a checkpoint; steps that the earlier
      # file has from there on were lost.
      start = min(points)
      series[tag] = {step: value for step, value in series[tag].items()
                     if step < start}
      series[tag].update(points)
  return {tag: tuple(zip(*sorted(points.items())))
          for tag, points in series.items()}


def _read_events(path):
  """Tag -> {step: value} of one file of summaries."""
  # TensorFlow takes seconds to load, and a slip shows without.
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  points = collections.defaultdict(dict)
  try:
    for event in tf.train.summary_iterator(path):
      for value in event.summary.value:
        if value.tag in TAGS:
          points[value.tag][event.step] = value.simple_value
  except tf.errors.DataLossError:
    pass  # The last record is cut off, as when the process was killed.
  return points


def group(runs):
  """Puts together the finished runs that differ in their seed only.

  Args:
    runs: a list of `Run`s.

  Returns:
    A list of `Group`s by data set, noise, student, steps and method.
  """
  members = collections.OrderedDict()
  for run in runs:
    key = (run.task, tuple(sorted(_settings(run.config).items())))
    members.setdefault(key, []).append(run)
  groups = []
  for (task, settings), together in members.items():
    finished = [run for run in together if run.state == FINISHED]
    if finished:
      groups.append(Group(
          task, finished[0].config.method, finished[0].config.method,
          dict(settings), finished, len(together) - len(finished)))
  groups = [g._replace(label=_label(g, groups)) for g in groups]
  return sorted(groups, key=_order)


def _settings(config):
  """Name -> value of what makes a difference for the method."""
  unused = config_lib.unused_settings(config.method)
  return {name: value for name, value in config._asdict().items()
          if name not in _OF_NO_WEIGHT and name not in unused}


def _label(one, groups):
  """The method; with the settings that others of the task and method have."""
  rivals = [g for g in groups if (g.task, g.method) == (one.task, one.method)]
  differing = sorted(name for name, value in one.settings.items()
                     if any(g.settings[name] != value for g in rivals))
  if not differing:
    return one.method
  return '%s (%s)' % (one.method, ', '.join(
      '%s %s' % (name, _short(one.settings[name])) for name in differing))


def _short(value):
  return '%g' % value if isinstance(value, float) else str(value)


def _order(one):
  dataset, noise, student, steps = one.task
  return (dataset, noise.kind or '', -1 if noise.level is None else noise.level,
          noise.name, student, steps, config_lib.METHODS.index(one.method),
          one.label)
