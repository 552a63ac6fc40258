"""Training runs on disk: their settings, their progress and their results.

    RUN/train/config.json, noise.json, checkpoint, events.out.tfevents.*
    RUN/eval/results.csv
    RUN/*.txt                 logs
    RUN/scores/summary.json   how well the loss ranks the labels

What a run lacks is empty here. A damaged file is an error that names it.
"""
import collections
import glob
import os
import re
import statistics
import typing

from mentormix import checkpoints
from mentormix import config as config_lib
from mentormix import files
from mentormix import presets
from mentormix.data import noise as noise_lib
from mentormix.data import noise_facts
from mentormix.evaluation import results as eval_results
from mentormix.messages import UserError
from mentormix.runtime import tf

FINISHED, FAILED = 'finished', 'failed'
UNFINISHED, NO_RESULTS = 'unfinished', 'no results'

TAGS = ('v/clean', 'v/noisy', 'v/precision', 'v/recall')  # Of the summaries.
SCORES = ('step', 'count', 'auc', 'average_precision', 'num_suspected',
          'precision', 'recall', 'noise_rate')


class Noise(typing.NamedTuple):
  """The noise in the labels that a run was trained on."""
  kind: str  # The definition, as in noise.json; None if it is not recorded.
  level: float  # The rate asked for, else the rate realised; None if unknown.
  name: str  # Kind and level in words.


class Task(typing.NamedTuple):
  """What runs must share for their figures to be comparable."""
  dataset: str
  noise: Noise
  student: str
  steps: int  # Number of steps to train.

  @property
  def student_and_steps(self):
    return f'{self.student}, {self.steps:,} steps'

  @property
  def cells(self):
    """The task in three cells of a table."""
    return [self.dataset, self.noise.name, self.student_and_steps]

  def published(self, level, method):
    """(paper, published code) at a noise level, percent; None if unknown."""
    if self.noise.kind != noise_lib.SYMMETRIC_OTHERS:
      return None, None
    return presets.published_accuracy(self.dataset, level, method)


class Run(typing.NamedTuple):
  """One training run."""
  path: str  # Its directory.
  config: config_lib.TrainConfig
  task: Task
  eval_results: list  # `results.Result`s of its evaluation, by step.
  series: dict  # Tag -> (steps, values), for those of TAGS that it has.
  scores: dict  # The content of summary.json; None without one.
  step: int  # The last step that is saved or evaluated.
  state: str  # FINISHED, FAILED, UNFINISHED or NO_RESULTS.
  message: str  # Why it failed, a line; '' if it did not.

  @property
  def last(self):
    """Accuracy of the last checkpoint in percent; None unless finished."""
    return self.median(1)

  @property
  def peak(self):
    """Accuracy of the best checkpoint in percent; None unless finished."""
    if self.state == FINISHED:
      return 100 * max(r.top1 for r in self.eval_results)
    return None

  def median(self, k):
    """Median accuracy of the last `k` checkpoints in percent, as `last`."""
    if self.state == FINISHED:
      return 100 * statistics.median(r.top1 for r in self.eval_results[-k:])
    return None


def read(directories):
  """Reads the runs in and below some directories.

  Args:
    directories: paths; a run that is found twice counts once.

  Returns:
    A list of `Run`s in the order of their paths.

  Raises:
    UserError: a directory holds no run, a file is damaged, or no run has been
      evaluated.
  """
  found = {}
  for directory in directories:
    if not os.path.isdir(directory):
      raise UserError(f'--runs: {directory} is not a directory')
    below = [folder for folder, _, names in os.walk(directory)
             if config_lib.CONFIG_FILE in names]
    if not below:
      raise UserError(f'--runs: {directory} holds no run: there is no '
                      f'{config_lib.CONFIG_FILE} in or below it')
    for train_dir in below:
      found.setdefault(os.path.realpath(train_dir), train_dir)
  runs = [_read_run(train_dir) for train_dir in sorted(found.values())]
  if not any(run.eval_results for run in runs):
    raise UserError(f'--runs={",".join(directories)}: no run has results; '
                    'evaluate them with cifar_eval.py')
  return runs


def _read_run(train_dir):
  """The `Run` whose config.json is in `train_dir`."""
  config = config_lib.restore(train_dir)
  parent = os.path.normpath(os.path.join(train_dir, os.pardir))
  folders = [train_dir]
  # If other runs are beside it, the parent's files may belong to any of them.
  if len(_find([parent], '*/' + config_lib.CONFIG_FILE)) == 1:
    folders.append(parent)
  results = _read_results(folders)
  step = max([checkpoints.last_step(train_dir)] + [r.step for r in results])
  message = ''
  if results and results[-1].step >= config.max_number_of_steps:
    state = FINISHED
  else:
    message = _failure(folders)
    state = (FAILED if message else UNFINISHED if results else NO_RESULTS)
  has_own_folder = os.path.basename(os.path.abspath(train_dir)) == 'train'
  return Run(
      path=parent if has_own_folder else train_dir,
      config=config,
      task=Task(config.dataset_name, _read_noise(train_dir, config.data_dir),
                config.studentnet, config.max_number_of_steps),
      eval_results=results, series=_read_series(train_dir),
      scores=_read_scores(folders), step=step, state=state, message=message)


def _find(folders, pattern):
  """The paths that match in the first folder where any does, sorted."""
  for folder in folders:
    found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if found:
      return found
  return []


def _read_noise(train_dir, data_dir):
  """The `Noise` from noise.json, else from the name of the data's directory."""
  name = os.path.basename(os.path.normpath(data_dir))
  facts = noise_facts.read_facts(train_dir)
  if facts is None:
    if re.match(r'(0(\.\d+)?|1(\.0+)?)$', name):
      return Noise(None, float(name),
                   f'{100 * float(name):g}%, definition not recorded')
    return Noise(None, None, f'{name}, noise not recorded')
  kind, asked, realised = [
      facts.get(key) for key in ('noise_type', 'rate_asked', 'rate_realised')]
  is_rate = lambda x: x is None or isinstance(x, (int, float)) and 0 <= x <= 1
  is_kind = kind is None or (isinstance(kind, str)
                             and kind in noise_lib.DEFINITIONS)
  if not (is_kind and is_rate(asked) and is_rate(realised)):
    path = os.path.join(train_dir, noise_facts.FACTS_FILE)
    raise UserError(f'{path} does not hold kind and rate of the noise')
  if kind is None:
    return Noise('none', realised, f'{name}, no noise added')
  if asked is not None:
    return Noise(kind, asked, f'{100 * asked:g}% {kind}')
  rate = 'rate not known' if realised is None else f'{realised:.1%}'
  return Noise(kind, realised, f'{name} ({rate})')


def _read_results(folders):
  """The rows of results.csv by step; if there are several files, of `eval`."""
  paths = _find(folders, '*/' + eval_results.FILE)
  if not paths:
    return []
  path = min(paths, key=lambda path: (
      os.path.basename(os.path.dirname(path)) != 'eval', path))
  return sorted({r.step: r for r in eval_results.read(path)}.values())


def _failure(folders):
  """The last line of the first log that ends with an error; '' without one."""
  for folder in folders:
    for path in _find([folder], '*.txt'):
      with open(path, encoding='utf-8', errors='replace') as f:
        lines = [line.strip() for line in f if line.strip()]
      traceback = False
      for line in lines:  # A line with a time ends a traceback.
        traceback = (line.startswith('Traceback (most recent call last)')
                     or traceback and not re.match(r'\d{4}-\d\d-\d\d ', line))
      if lines and (traceback or ': error: ' in lines[-1]):
        return lines[-1]
  return ''


def _read_scores(folders):
  """The content of summary.json; None without one."""
  paths = _find(folders, 'scores/summary.json')
  if not paths:
    return None
  path = paths[0]
  scores = files.read_object(path, 'a summary of label scores')
  for key in SCORES:
    value = scores.get(key, 'missing')
    if not (value is None or isinstance(value, (int, float)) and value >= 0):
      raise UserError(f'{path} cannot be read: {key} is {value!r:.40}')
  return scores


def _read_series(train_dir):
  """Tag -> (steps, values) of the summaries, for those of TAGS that exist."""
  series = collections.defaultdict(dict)
  for path in _find([train_dir], 'events.out.tfevents.*'):
    if not os.path.isfile(path):
      continue
    for tag, points in _read_events(path).items():
      # A run resumes from a checkpoint, so the steps after it in the earlier
      # file were lost.
      start = min(points)
      series[tag] = {step: value for step, value in series[tag].items()
                     if step < start}
      series[tag].update(points)
  return {tag: tuple(zip(*sorted(points.items())))
          for tag, points in series.items()}


def _read_events(path):
  """Tag -> {step: value} of one file of summaries."""
  points = collections.defaultdict(dict)
  try:
    for event in tf.train.summary_iterator(path):
      for value in event.summary.value:
        if value.tag in TAGS:
          points[value.tag][event.step] = value.simple_value
  except tf.errors.DataLossError:
    pass  # A killed process leaves an incomplete last record.
  return points
