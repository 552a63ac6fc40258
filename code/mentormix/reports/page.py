"""The page of a report: which parts it has."""
import collections
import itertools

from mentormix.data import noise
from mentormix.reports import blocks as blocks_lib
from mentormix.reports import runs as runs_lib
from mentormix.reports import study
from mentormix.reports.blocks import Block, number

_CAPTIONS = {
    **study.CAPTIONS,
    'accuracy_vs_step.png':
        'Accuracy over training. Thin: single seeds; thick: their mean.',
    'weights.png':
        'Mean weight v of the examples of a batch with a right and with a '
        'wrong label. Running mean over 5% of the training.',
    'selection.png':
        'The examples of a batch with v ≥ 0.5: precision and recall of right '
        'labels. Running mean over 5% of the training.',
}
_TASK = ['Data', 'Noise', 'Student, steps']  # Header of `runs.Task.cells`.


def page(runs, groups, pictures, last_k):
  """The report.

  Args:
    runs: a list of `runs.Run`s.
    groups: a list of `groups.Group`s.
    pictures: names of the pictures that were drawn.
    last_k: how many of the last checkpoints the median covers.

  Returns:
    A list of `Block`s.
  """
  blocks = [Block(text=_count(runs))]
  if study.is_one(groups):
    blocks += study.section(groups, pictures)
  blocks += [Block(heading='Accuracy')] + _accuracy(groups, last_k)
  blocks += [Block(heading='Comparison')] + _comparison(groups)
  shown = {block.picture for block in blocks}
  others = [name for name in pictures if name not in shown]
  if others:
    blocks.append(Block(heading='Pictures'))
    blocks += [Block(picture=name, caption=_CAPTIONS[name])
               for name in others]
  ranked = [run for run in runs if run.scores]
  if ranked:
    blocks += [Block(heading='Label ranking')] + _ranking(ranked)
  return blocks + [Block(heading='Runs'), _runs(runs),
                   Block(text=blocks_lib.PEAK_NOTE)]


def _count(runs):
  """How many runs there are, in which states, in words."""
  states = collections.Counter(run.state for run in runs)
  finished = states.pop(runs_lib.FINISHED, 0)
  text = f'{len(runs)} runs, {finished} finished.'
  if states:
    others = ', '.join(f'{n} {state}' for state, n in sorted(states.items()))
    text += f' Left out of all figures: {others}.'
  return text


def _accuracy(groups, last_k):
  """The table of all groups, and what its columns mean."""
  if not groups:
    return [Block(text='No run has finished yet.')]
  rows = []
  optional = [
      (title, name, note) for title, name, note in (
          (blocks_lib.RECOMPUTED, 'recomputed', blocks_lib.RECOMPUTED_NOTE),
          (blocks_lib.PICKED, 'picked', blocks_lib.PICKED_NOTE))
      if any(getattr(g, name) for g in groups)]
  for g in groups:
    published = g.task.published(g.task.noise.level, g.method)
    rows.append(g.task.cells + [
        g.label, len(g.runs), g.left_out, g.last, g.peak,
        *(getattr(g, name) or '–' for _, name, _ in optional),
        g.median(last_k),
        *(number(figure, '.1f') for figure in published)])
  kinds = {g.task.noise.kind for g in groups}
  return [
      Block(header=_TASK + ['Method', 'Runs', 'Left out', 'Last',
                            blocks_lib.PEAK,
                            *(title for title, _, _ in optional),
                            f'Median of {last_k}', 'Paper', 'Published code'],
            rows=rows),
      Block(text=blocks_lib.PEAK_NOTE)
  ] + [Block(text=note) for _, _, note in optional] + [
      Block(text=(
          'Top-1 accuracy on the test set in percent: mean ± sample standard '
          'deviation over runs that differ in their seed only. Left out: runs '
          'that are not finished. Last: the checkpoint of the last step; this '
          'is the figure to compare. Median: of '
          f'the last {last_k} checkpoints, or of all if there are fewer.')),
      Block(text=(
          'Paper and published code: ResNet-32 with 29.4 M parameters, '
          f'200,000 steps, {noise.SYMMETRIC_OTHERS} noise; for '
          'mini_imagenet_red, images of 32 x 32, run by the FaMUS paper. They '
          'are no target for a smaller student or fewer steps.'))
  ] + [Block(text=f'{kind}: {about}.')
       for kind, about in noise.DEFINITIONS.items() if kind in kinds]


def _comparison(groups):
  """By how much mentormix is ahead of each other method on the same task."""
  rows, ahead = [], 0
  for ours, other in itertools.permutations(groups, 2):
    if (ours.task == other.task and ours.method == 'mentormix'
        and other.method != 'mentormix'):
      points = round(ours.last.mean - other.last.mean, 2)
      ahead += points > 0
      verdict = (f'ahead by {points:.2f}' if points > 0 else
                 f'not ahead: behind by {-points:.2f}' if points else
                 'not ahead: equal')
      differing = ', '.join(
          name for name, value in ours.settings.items()
          if name != 'method' and other.settings.get(name, value) != value)
      rows.append(ours.task.cells + [
          ours.label, ours.last, other.label, other.last, verdict,
          f'not the same: {differing}' if differing else 'the same'])
  if not rows:
    return [Block(text='No data set, noise, student and number of steps has '
                       'both mentormix and another method.')]
  return [
      Block(text=f'mentormix is ahead in {ahead} of {len(rows)} comparisons, '
                 'by the mean of the last checkpoints, in percentage points.'),
      Block(header=_TASK + ['Method', 'Last', 'Against', 'Last', 'Verdict',
                            'Other settings'], rows=rows)]


def _ranking(runs):
  """How well the loss ranks the labels of each run."""
  columns = {'auc': '.4f', 'average_precision': '.4f', 'num_suspected': '.0f',
             'precision': '.4f', 'recall': '.4f'}
  rows = [[run.path, run.config.method, run.config.seed] + [
      number(run.scores.get(key), form) for key, form in columns.items()]
          for run in runs]
  return [
      Block(text=(
          'Training examples ranked by the loss of the label that they were '
          'given. AUC: the chance that a wrong label ranks above a right one. '
          'Precision and recall: of the suspected labels.')),
      Block(header=['Run', 'Method', 'Seed', 'AUC', 'Average precision',
                    'Suspected', 'Precision', 'Recall'], rows=rows)]


def _runs(runs):
  """The table of all runs."""
  rows = [[run.path] + run.task.cells + [
      run.config.method, run.config.seed,
      f'{run.state}: {run.message}' if run.message else run.state,
      f'{run.step:,} of {run.task.steps:,}', number(run.last, '.2f'),
      number(run.peak, '.2f')] for run in runs]
  return Block(header=['Run'] + _TASK + [
      'Method', 'Seed', 'State', 'Step', 'Last', blocks_lib.PEAK], rows=rows)
