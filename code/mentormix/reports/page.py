"""The parts of a report's page: headings, texts, tables, pictures."""
import collections
import typing

from mentormix.data import noise
from mentormix import presets
from mentormix.reports import runs as runs_lib

NO_FIGURE = '–'  # Stands in a table where there is no figure.

_CAPTIONS = {
    'accuracy_vs_step.png':
        'Accuracy over training. Thin: single seeds; thick: their mean.',
    'accuracy_vs_noise.png':
        'Accuracy of the last checkpoint by noise level. Bars: standard '
        'deviation over the seeds. Dashed, hollow: the paper, at full size.',
    'weights.png':
        'Mean weight v of the examples of a batch with a right and with a '
        'wrong label. Running mean over 5% of the training.',
    'selection.png':
        'The examples of a batch with v ≥ 0.5. Precision: the share of them '
        'whose label is right; recall: the share of the right labels that they '
        'are. Running mean over 5% of the training.',
}


class Block(typing.NamedTuple):
  """A part of the page: a heading, a text, a table or a picture."""
  heading: str = ''
  text: str = ''
  header: list = ()  # Of a table.
  rows: list = ()  # Lists of cells; str() gives their text.
  picture: str = ''  # Name of the file.
  caption: str = ''


def student_of(task):
  """Student and number of steps, in words."""
  return f'{task.student}, {task.steps:,} steps'


def published(task, level, method):
  """(paper, published code) at a noise level; None if there is no figure."""
  if task.noise.kind != noise.SYMMETRIC_OTHERS:
    return None, None
  return presets.published_accuracy(task.dataset, level, method)


# The page.


def page(runs, groups, pictures, last_k):
  """The report.

  Args:
    runs: a list of `runs.Run`s.
    groups: a list of `runs.Group`s.
    pictures: names of the pictures that were drawn.
    last_k: how many of the last checkpoints the median covers.

  Returns:
    A list of `Block`s.
  """
  blocks = [_text(_count(runs)), _heading('Accuracy')]
  blocks += _accuracy(groups, last_k)
  blocks += [_heading('Comparison')] + _comparison(groups)
  if pictures:
    blocks.append(_heading('Pictures'))
    blocks += [Block(picture=name, caption=_CAPTIONS[name])
               for name in pictures]
  ranked = [run for run in runs if run.scores]
  if ranked:
    blocks += [_heading('Label ranking')] + _ranking(ranked)
  return blocks + [_heading('Runs'), _runs(runs)]


def _heading(heading):
  return Block(heading=heading)


def _text(text):
  return Block(text=text)


def _table(header, rows):
  return Block(header=header, rows=rows)


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
    return [_text('No run has finished yet.')]
  rows = []
  for g in groups:
    rows.append([
        g.task.dataset, g.task.noise.name, student_of(g.task), g.label,
        len(g.runs), g.left_out, g.last, g.peak, g.median(last_k)] + [
            _figure(figure, '.1f')
            for figure in published(g.task, g.task.noise.level, g.method)])
  blocks = [
      _text('Top-1 accuracy on the test set in percent: mean ± sample standard '
            'deviation over the runs of a group, which differ in their seed '
            'only. A single run has no deviation. Left out are runs of the '
            'group that are not finished.'),
      _table(['Data', 'Noise', 'Student, steps', 'Method', 'Runs', 'Left out',
              'Last', 'Peak', f'Median of {last_k}', 'Paper',
              'Published code'], rows),
      _text('Last: the checkpoint of the last step; this is the figure to '
            'compare. Peak: the best of all checkpoints on the test set, which '
            'nobody could have picked without it. Median: of the last '
            f'{last_k} checkpoints, or of all where a run has fewer.'),
      _text('Paper and published code: ResNet-32 with 29.4 M parameters, '
            f'200,000 steps, {noise.SYMMETRIC_OTHERS} noise. They are no '
            'target for a smaller student or fewer steps.')]
  kinds = {g.task.noise.kind for g in groups}
  return blocks + [_text(f'{kind}: {about}.')
                   for kind, about in noise.NOISE_TYPES.items()
                   if kind in kinds]


def _comparison(groups):
  """By how much mentormix is ahead of each other method on the same task."""
  rows, ahead = [], 0
  for ours in groups:
    for other in groups:
      if (ours.task == other.task and ours.method == 'mentormix'
          and other.method != 'mentormix'):
        points = round(ours.last.mean - other.last.mean, 2)
        ahead += points > 0
        rows.append([
            ours.task.dataset, ours.task.noise.name, student_of(ours.task),
            ours.label, ours.last, other.label, other.last, _verdict(points),
            _differing(ours, other)])
  if not rows:
    return [_text('No data set, noise, student and number of steps has both '
                  'mentormix and another method.')]
  return [
      _text(f'mentormix is ahead in {ahead} of {len(rows)} comparisons, by the '
            'mean of the last checkpoints, in percentage points.'),
      _table(['Data', 'Noise', 'Student, steps', 'Method', 'Last', 'Against',
              'Last', 'Verdict', 'Other settings'], rows)]


def _verdict(points):
  if points > 0:
    return f'ahead by {points:.2f}'
  return f'not ahead: behind by {-points:.2f}' if points else 'not ahead: equal'


def _differing(ours, other):
  """The settings that both methods use and that differ, in words."""
  names = [name for name, value in sorted(ours.settings.items())
           if name != 'method' and other.settings.get(name, value) != value]
  return 'not the same: ' + ', '.join(names) if names else 'the same'


def _figure(value, form):
  return NO_FIGURE if value is None else format(value, form)


def _ranking(runs):
  """How well the loss ranks the labels of each run."""
  columns = {'auc': '.4f', 'average_precision': '.4f', 'num_suspected': '.0f',
             'precision': '.4f', 'recall': '.4f'}
  rows = [[run.path, run.config.method, run.config.seed] + [
      _figure(run.scores[key], form) for key, form in columns.items()]
          for run in runs]
  return [
      _text('Training examples ranked by the loss of the label that they were '
            'given. AUC: the chance that a wrong label ranks above a right '
            'one. Precision: the share of the suspected labels that are wrong; '
            'recall: the share of the wrong labels that are suspected.'),
      _table(['Run', 'Method', 'Seed', 'AUC', 'Average precision', 'Suspected',
              'Precision', 'Recall'], rows)]


def _runs(runs):
  """The table of all runs."""
  rows = []
  for run in runs:
    finished = run.state == runs_lib.FINISHED
    rows.append([
        run.path, run.task.dataset, run.task.noise.name, student_of(run.task),
        run.config.method, run.config.seed,
        f'{run.state}: {run.message}' if run.message else run.state,
        f'{run.step:,} of {run.task.steps:,}',
        _figure(run.last if finished else None, '.2f'),
        _figure(run.peak if finished else None, '.2f')])
  return _table(['Run', 'Data', 'Noise', 'Student, steps', 'Method', 'Seed',
                 'State', 'Step', 'Last', 'Peak'], rows)
