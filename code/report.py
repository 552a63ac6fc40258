r"""Puts training runs into tables and pictures.

    python code/report.py --runs=runs/cifar10,runs/cifar100 --output_dir=report

reads every run in and below --runs and writes report.html (one page that
includes the pictures), report.md, report.csv (a row for each group of runs that
differ only in their seed), runs.csv (a row for each run) and the pictures
(PNG). It replaces what an earlier call wrote and nothing else. Exit codes:
0 written, 1 failed, 2 bad input.
"""
import base64
import collections
import csv
import io
import os
import re
import typing

from absl import flags
import jinja2

from mentormix import command
from mentormix import config as config_lib
from mentormix import figures
from mentormix import files
from mentormix import noise
from mentormix import presets
from mentormix import runs as runs_lib
from mentormix.command import UserError

_SMOOTHED = 0.05  # Share of the training that a running mean covers.
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


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_list('runs', [],
                    'Directories that are runs or have runs below them.')
  flags.DEFINE_string('output_dir', None, 'The directory to write to.')
  flags.DEFINE_integer(
      'last_k', 5, 'How many of the last checkpoints the median covers.',
      lower_bound=1)
  flags.DEFINE_string('title', 'Training on noisy labels',
                      'Title of the page.')


def main():
  """Flags -> runs -> groups -> files."""
  args = flags.FLAGS
  for name in ('runs', 'output_dir'):
    if not args[name].value:
      raise UserError(f'--{name} is missing; see --help')
  runs = runs_lib.read(args.runs)
  groups = runs_lib.group(runs)
  files.writable_directory(args.output_dir, 'output_dir')
  pictures = draw(groups, args.output_dir)
  blocks = page(runs, groups, pictures, args.last_k)
  texts = {
      'report.csv': to_csv(group_rows(groups, args.last_k)),
      'runs.csv': to_csv(run_rows(runs, args.last_k)),
  }
  for name in ('report.md', 'report.html'):
    texts[name] = render(name, args.title, blocks, args.output_dir)
  for name, text in texts.items():
    path = os.path.join(args.output_dir, name)
    # The name of a directory is not always valid text.
    with open(path, 'w', encoding='utf-8', errors='backslashreplace',
              newline='') as f:
      f.write(text)
  print(f'{path}: {blocks[0].text}')


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


# Pictures.


def draw(groups, directory):
  """Draws every picture that there are data for.

  Args:
    groups: a list of `runs.Group`s.
    directory: where the files go. A picture of an earlier call that is not
      drawn now is deleted.

  Returns:
    The names of the files, a list.
  """
  drawn = []
  for name, function, panels, options in (
      ('accuracy_vs_step.png', figures.over_training, _step_panels(groups),
       dict(ylabel='accuracy on the test set, %')),
      ('accuracy_vs_noise.png', figures.accuracy_vs_noise,
       _noise_panels(groups), {}),
      ('weights.png', figures.over_training, _summary_panels(
          groups, {'v/clean': 'right labels', 'v/noisy': 'wrong labels'}),
       dict(ylabel='mean weight v', ylim=(0, 1.03))),
      ('selection.png', figures.over_training, _summary_panels(
          groups, {'v/precision': 'precision', 'v/recall': 'recall'}),
       dict(ylabel='share of the examples', ylim=(0, 1.03)))):
    path = os.path.join(directory, name)
    if panels:
      function(panels, path=path, **options)
      drawn.append(name)
    elif os.path.exists(path):
      os.remove(path)
  return drawn


def _step_panels(groups):
  """A panel per task: (title, curves)."""
  panels = {}
  for group in groups:
    panels.setdefault(_title(group.task, groups), []).append(figures.Curve(
        group.label, group.method, _line(group, groups),
        [([r.step for r in run.results], [100 * r.top1 for r in run.results])
         for run in group.runs]))
  return list(panels.items())


def _noise_panels(groups):
  """A panel per data set, definition of noise, student and number of steps."""
  members = {}
  for group in groups:
    kind, level, _ = group.task.noise
    if level is not None:
      task = group.task._replace(noise=runs_lib.Noise(
          kind, None, kind or 'definition not recorded'))
      members.setdefault(task, []).append(group)
  panels = []
  for task, together in members.items():
    points = {}  # One curve for each label.
    for group in together:
      points.setdefault(
          (group.label, group.method, _line(group, groups)), []).append(
              (group.task.noise.level, group.last.mean, group.last.deviation))
    for method in sorted({group.method for group in together}):
      paper = [(level, published(task, level, method)[0], None)
               for level in presets.LEVELS]
      if paper[0][1] is not None:
        points[f'{method}, paper', method, figures.DASHED] = paper
    panels.append((_title(task, groups), [
        figures.Curve(label, method, line, points[label, method, line])
        for label, method, line in points]))
  return panels


def _summary_panels(groups, about):
  """A panel per group with a weighting method whose runs have summaries.

  Args:
    groups: a list of `runs.Group`s.
    about: two tags -> words for the legend; the second tag is drawn dashed.

  Returns:
    A list of (title, curves).
  """
  panels = []
  for group in groups:
    curves = []
    for tag, line in zip(about, (figures.SOLID, figures.DASHED)):
      points = [figures.smooth(*run.series[tag],
                               width=_SMOOTHED * group.task.steps)
                for run in group.runs if tag in run.series]
      points = [(steps, values) for steps, values in points if len(steps)]
      if points and group.method in config_lib.WEIGHTED:
        curves.append(figures.Curve(f'{group.method}, {about[tag]}',
                                    group.method, line, points))
    if curves:
      panels.append((f'{_title(group.task, groups)}\n{group.label}', curves))
  return panels


def _line(group, groups):
  """One line style for each label of a method."""
  labels = sorted({g.label for g in groups if g.method == group.method})
  return figures.VARIANTS[labels.index(group.label) % len(figures.VARIANTS)]


def _title(task, groups):
  """The task in words; with student and steps if the groups differ in them."""
  title = f'{task.dataset}, {task.noise.name}'
  if len({g.task[2:] for g in groups}) > 1:
    title += f'\n{student_of(task)}'
  return title


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


# The page as Markdown and as HTML.


def render(name, title, blocks, directory):
  """The page in the form of one of the templates, a string.

  Args:
    name: report.md, which shows the pictures beside it; or report.html, which
      includes them and needs no other file.
    title: of the page.
    blocks: as from `page`.
    directory: where the pictures are.
  """
  def picture_data(picture):
    with open(os.path.join(directory, picture), 'rb') as f:
      return base64.b64encode(f.read()).decode('ascii')

  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mentormix'), trim_blocks=True,
      autoescape=jinja2.select_autoescape(), keep_trailing_newline=True)
  environment.filters.update(plain=_plain, kind=_kind)
  return environment.get_template(name).render(
      title=title, blocks=blocks, picture_data=picture_data)


def _plain(value):
  """Text on one line in which Markdown sees no markup."""
  return re.sub(r'([\\`*<>|#\[\]]|(?<!\w)_|_(?!\w))', r'\\\1',
                ' '.join(str(value).split()))


def _kind(cell):
  """The class of a cell in HTML."""
  text = str(cell)
  if re.match(rf'[\d.,]+( ± [\d.]+)?$|{NO_FIGURE}$', text):
    return 'number'
  return 'long' if len(text) > 40 else 'text'


# The tables as files.


def group_rows(groups, last_k):
  """The rows of report.csv, dicts; '' stands where there is no figure."""
  rows = []
  for group in groups:
    row = _task_columns(group.task)
    row.update(method=group.method, group=group.label, runs=len(group.runs),
               left_out=group.left_out)
    for name, figure in (('last', group.last), ('peak', group.peak),
                         (f'median_of_{last_k}', group.median(last_k))):
      row[f'{name}_mean'] = _number(figure.mean)
      row[f'{name}_deviation'] = _number(figure.deviation)
    row['paper'], row['published_code'] = map(
        _number, published(group.task, group.task.noise.level, group.method))
    rows.append(row)
  return rows


def run_rows(runs, last_k):
  """The rows of runs.csv: the state of each run and all its settings."""
  rows = []
  for run in runs:
    row = {'path': run.path, **_task_columns(run.task)}
    row.update(method=run.config.method, seed=run.config.seed, state=run.state,
               step=run.step, checkpoints=len(run.results))
    finished = run.state == runs_lib.FINISHED
    row['last'] = _number(run.last if finished else None)
    row['peak'] = _number(run.peak if finished else None)
    row[f'median_of_{last_k}'] = _number(
        run.median(last_k) if finished else None)
    row['message'] = run.message
    row.update((name, value) for name, value in run.config._asdict().items()
               if name not in row)
    rows.append(row)
  return rows


def _task_columns(task):
  return {'dataset_name': task.dataset, 'noise': task.noise.name,
          'noise_type': task.noise.kind or '',
          'noise_level': '' if task.noise.level is None else task.noise.level,
          'studentnet': task.student, 'max_number_of_steps': task.steps}


def _number(value):
  return '' if value is None else f'{value:.4f}'


def to_csv(rows):
  """The text of a CSV file.

  Args:
    rows: a list of dicts with the same keys; without rows the text is empty.

  Returns:
    A string.
  """
  text = io.StringIO()
  writer = csv.DictWriter(text, rows[0] if rows else (), lineterminator='\n')
  if rows:
    writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


if __name__ == '__main__':
  cli()
