"""Training runs on disk: their settings, their progress and their results.

    RUN/train/config.json, noise.json, checkpoint, events.out.tfevents.*
    RUN/eval/results.csv      accuracy on the test set
    RUN/holdout/results.csv   accuracy on held-out training images, noisy labels
    RUN/*.txt                 logs
    RUN/scores/summary.json   how well the loss ranks the labels

A --train_log_dir with another name than train is RUN itself; its results may
also be in RUN-eval and RUN-holdout. What a run lacks is empty here. A damaged
file is an error that names it.
"""
import collections
import glob
import math
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

_HOLDOUT = 'holdout'  # In the name of each folder with such results.

TAGS = ('v/clean', 'v/noisy', 'v/precision', 'v/recall')  # Of the summaries.


class Noise(typing.NamedTuple):
  """The noise in the labels that a run was trained on."""
  kind: str  # The definition, as in noise.json; None if it is not recorded.
  level: float  # The rate asked for, else the rate realised; None if unknown.
  name: str  # Kind and level in words.

  @property
  def kind_name(self):
    """The kind in words."""
    return ('label file' if self.kind == noise_lib.FILE
            else self.kind or 'definition not recorded')


class Task(typing.NamedTuple):
  """What runs must share for their figures to be comparable."""
  dataset: str
  noise: Noise
  student: str
  steps: int  # Number of steps to train.
  start: str = ''  # The --checkpoint_path of a fine-tuned run.

  @property
  def initialisation(self):
    return f'fine-tuned from {self.start}' if self.start else 'from scratch'

  @property
  def student_and_steps(self):
    return f'{self.student}, {self.steps:,} steps' + (
        f', {self.initialisation}' if self.start else '')

  @property
  def over_levels(self):
    """The task with a noise that has a kind, but no level."""
    return self._replace(
        noise=Noise(self.noise.kind, None, self.noise.kind_name))

  @property
  def cells(self):
    """The task in three cells of a table."""
    return [self.dataset, self.noise.name, self.student_and_steps]

  def published(self, level, method):
    """(paper, published code) at a noise level, percent; None if unknown."""
    if self.noise.kind not in (noise_lib.SYMMETRIC_OTHERS, noise_lib.RED):
      return None, None
    return presets.published_accuracy(self.dataset, level, method)


class Run(typing.NamedTuple):
  """One training run."""
  path: str  # Its directory.
  config: config_lib.TrainConfig
  task: Task
  facts: dict  # The noise.json of its data; {} if there is none.
  eval_results: list  # `results.Result`s of its evaluation, by step.
  holdout_results: list  # The same, on held-out images with noisy labels.
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
  def recomputed(self):
    """As `last`, with recomputed statistics; None also without them."""
    if self.state != FINISHED:
      return None
    top1 = self.eval_results[-1].top1_recomputed
    return None if math.isnan(top1) else 100 * top1

  @property
  def peak(self):
    """Accuracy of the best checkpoint in percent; None unless finished."""
    if self.state == FINISHED:
      return 100 * max(r.top1 for r in self.eval_results)
    return None

  @property
  def drop(self):
    """Peak minus last, in percentage points; None unless finished."""
    return self.peak - self.last if self.state == FINISHED else None

  @property
  def picked(self):
    """Test accuracy where that on the held-out images is best, in percent.

    The first of equally good checkpoints counts. None unless the run is
    finished, and its last checkpoint evaluated on the held-out images.
    """
    test = {r.step: 100 * r.top1 for r in self.eval_results}
    held_out = [r for r in self.holdout_results if r.step in test]
    if (self.state != FINISHED or not held_out
        or held_out[-1].step < self.eval_results[-1].step):
      return None
    return test[max(held_out, key=lambda r: r.top1).step]

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
  path = train_dir
  if os.path.basename(os.path.abspath(train_dir)) == 'train':
    path = os.path.normpath(os.path.join(train_dir, os.pardir))
  facts = noise_facts.read_facts(train_dir)
  results, holdout_results = _read_results(path), _read_holdout(path, facts)
  message = ''
  if results and results[-1].step >= config.max_number_of_steps:
    state = FINISHED
  else:
    message = _failure(path)
    state = FAILED if message else UNFINISHED if results else NO_RESULTS
  return Run(
      path=path, config=config,
      task=Task(config.dataset_name, _noise(facts, config.data_dir),
                config.studentnet, config.max_number_of_steps,
                _start(config.checkpoint_path)),
      facts=facts or {}, eval_results=results, holdout_results=holdout_results,
      series=_read_series(train_dir),
      scores=files.read_object(os.path.join(path, 'scores', 'summary.json'),
                               'a summary of label scores'),
      step=max([checkpoints.last_step(train_dir)] + [r.step for r in results]),
      state=state, message=message)


def _start(path):
  """A --checkpoint_path, the same for all ways to write it; '' stays."""
  return path and os.path.relpath(path)


def _find(folder, pattern):
  """The paths that begin with a folder and go on with a pattern, sorted."""
  return sorted(glob.glob(glob.escape(folder) + pattern))


def _noise(facts, data_dir):
  """The `Noise` from noise.json, else from the name of the data's directory."""
  name = os.path.basename(os.path.normpath(data_dir))
  if facts is None:
    if re.match(r'(0(\.\d+)?|1(\.0+)?)$', name):
      return Noise(None, float(name),
                   f'{100 * float(name):g}%, definition not recorded')
    return Noise(None, None, f'{name}, noise not recorded')
  kind, asked, realised = [
      facts.get(key) for key in ('noise_type', 'rate_asked', 'rate_realised')]
  if kind is None:
    return Noise('none', realised, f'{name}, no noise added')
  if asked is not None:
    return Noise(kind, asked, f'{100 * asked:g}% {kind}')
  rate = 'rate not known' if realised is None else f'{realised:.1%}'
  return Noise(kind, realised, f'{name} ({rate})')


def _read_results(path):
  """The rows of results.csv by step; if there are several files, of `eval`."""
  paths = [file for folder in ('/eval/', '/*/', '-eval/')
           for file in _find(path, folder + eval_results.FILE)
           if _HOLDOUT not in os.path.basename(os.path.dirname(file))]
  for file in paths[:1]:
    if 'holdout' in (_data_of(file) or {}):
      raise UserError(
          f'{file} is about held-out images with noisy labels, not about a '
          f'test set; rename its directory to {_HOLDOUT}, and evaluate on the '
          'test set')
  return _rows(paths[:1])


def _read_holdout(path, facts):
  """The rows of the results on the held-out images, by step."""
  paths = [file for folder in (f'/{_HOLDOUT}/', f'-{_HOLDOUT}/')
           for file in _find(path, folder + eval_results.FILE)]
  rows, facts = _rows(paths[:1]), facts or {}
  for row in rows:
    if row.count != facts.get('num_held_out') or noise_facts.differing(
        facts, _data_of(paths[0]) or facts):
      raise UserError(
          f'{paths[0]} is not about the images held out from the training set '
          f'of the run, according to its {noise_facts.FACTS_FILE}; evaluate on '
          'the directory *_holdout beside that set, or move the file away')
  return rows


def _data_of(results_file):
  """The noise.json of the data that results are about; None if unknown."""
  return noise_facts.read_facts(os.path.dirname(results_file),
                                eval_results.FACTS_FILE)


def _rows(paths):
  """The rows of results files, by step."""
  rows = [row for path in paths for row in eval_results.read(path)]
  return sorted({r.step: r for r in rows}.values())


def _failure(path):
  """The last line of the first log that ends with an error; '' without one."""
  for log in _find(path, '/*.txt'):
    with open(log, encoding='utf-8', errors='replace') as f:
      last = f.read().strip().split('\n')[-1]
    if re.match(r'.*: error: |[\w.]+Error\b', last):
      return last
  return ''


def _read_series(train_dir):
  """Tag -> (steps, values) of the summaries, for those of TAGS that exist."""
  series = collections.defaultdict(dict)
  for path in _find(train_dir, '/events.out.tfevents.*'):
    here = collections.defaultdict(dict)
    try:
      for event in tf.train.summary_iterator(path):
        for value in event.summary.value:
          if value.tag in TAGS:
            here[value.tag][event.step] = value.simple_value
    except tf.errors.DataLossError:
      pass  # A killed process leaves an incomplete last record.
    for tag, points in here.items():
      # A run resumes from a checkpoint, so the steps after it in the earlier
      # file were lost.
      kept = {step: value for step, value in series[tag].items()
              if step < min(points)}
      series[tag] = {**kept, **points}
  return {tag: tuple(zip(*sorted(points.items())))
          for tag, points in series.items()}
