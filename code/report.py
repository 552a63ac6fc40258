r"""Puts training runs into tables and pictures.

    python code/report.py --runs=runs/cifar10,runs/cifar100 --output_dir=report

reads every run in and below --runs and writes report.html (one page with all in
it), report.md, report.csv (a row per group of runs that differ in their seed
only), runs.csv (a row per run) and the pictures (PNG). What an earlier call has
written is replaced, nothing else is touched. Exit codes: 0 written, 1 failed,
2 bad input.
"""
import base64
import collections
import csv
import html
import io
import os
import re

from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix import figures
from mentormix import files
from mentormix import noise
from mentormix import presets
from mentormix import runs as runs_lib
from mentormix.command import UserError

_SMOOTHED = 0.05  # Share of the training that a running mean is taken over.
_NONE = '–'  # In a table, where there is no figure.

_CAPTIONS = collections.OrderedDict((
    ('accuracy_vs_step.png',
     'Accuracy over training. Thin: single seeds; thick: their mean.'),
    ('accuracy_vs_noise.png',
     'Accuracy of the last checkpoint by noise level. Bars: standard deviation '
     'over the seeds. Dashed, hollow: the paper, at full size.'),
    ('weights.png',
     'Mean weight v of the examples of a batch with a right and with a wrong '
     'label. Running mean over 5% of the training.'),
    ('selection.png',
     'The examples of a batch with v ≥ 0.5. Precision: the share of them whose '
     'label is right; recall: the share of the right labels that they are. '
     'Running mean over 5% of the training.'),
))

# What the page is made of; to_markdown() and to_html() each write it.
Heading = collections.namedtuple('Heading', 'text')
Text = collections.namedtuple('Text', 'text')
Table = collections.namedtuple('Table', 'header rows')
Picture = collections.namedtuple('Picture', 'name caption')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_list('runs', [], 'Directories of runs, or above runs.')
  flags.DEFINE_string('output_dir', None, 'The directory to write to.')
  flags.DEFINE_integer(
      'last_k', 5, 'Number of checkpoints that the median is of.',
      lower_bound=1)
  flags.DEFINE_string('title', 'Training on noisy labels',
                      'Title of the page.')


def main():
  """Flags -> runs -> groups -> files."""
  args = flags.FLAGS
  for name in ('runs', 'output_dir'):
    if not args[name].value:
      raise UserError('--%s is missing; see --help' % name)
  runs = runs_lib.read(args.runs)
  groups = runs_lib.group(runs)
  files.writable_directory(args.output_dir, 'output_dir')
  pictures = draw(groups, args.output_dir)
  blocks = page(runs, groups, pictures, args.last_k)
  texts = collections.OrderedDict([
      ('report.csv', to_csv(group_rows(groups, args.last_k))),
      ('runs.csv', to_csv(run_rows(runs, args.last_k))),
      ('report.md', to_markdown(args.title, blocks)),
      ('report.html', to_html(args.title, blocks, args.output_dir)),
  ])
  for name, text in texts.items():
    path = os.path.join(args.output_dir, name)
    # A name on disk need not be text.
    with open(path, 'w', encoding='utf-8', errors='backslashreplace',
              newline='') as f:
      f.write(text)
  print('%s: %s' % (path, _count(runs)))


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


# Pictures.


def draw(groups, directory):
  """Draws what there are data for.

  Args:
    groups: a list of `runs.Group`s.
    directory: where the files go. A picture that an earlier call has left there
      and that is not drawn now is deleted.

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
  panels = collections.OrderedDict()
  for group in groups:
    panels.setdefault(_title(group.task, groups), []).append(figures.Curve(
        group.label, group.method, _line(group, groups),
        [([r.step for r in run.results], [100 * r.top1 for r in run.results])
         for run in group.runs]))
  return list(panels.items())


def _noise_panels(groups):
  """A panel per data set, definition of noise, student and number of steps."""
  members = collections.OrderedDict()
  for group in groups:
    kind, level, _ = group.task.noise
    if level is not None:
      task = group.task._replace(noise=runs_lib.Noise(
          kind, None, kind or 'definition not recorded'))
      members.setdefault(task, []).append(group)
  panels = []
  for task, together in members.items():
    points = collections.OrderedDict()  # One curve for each label.
    for group in together:
      points.setdefault(
          (group.label, group.method, _line(group, groups)), []).append(
              (group.task.noise.level, group.last.mean, group.last.deviation))
    for method in sorted({group.method for group in together}):
      paper = [(level, _published(task, level, method)[0], None)
               for level in presets.LEVELS]
      if paper[0][1] is not None:
        points[method + ', paper', method, figures.DASHED] = paper
    panels.append((_title(task, groups), [
        figures.Curve(label, method, line, points[label, method, line])
        for label, method, line in points]))
  return panels


def _summary_panels(groups, about):
  """A panel per group of a method that weights, where its runs have summaries.

  Args:
    groups: a list of `runs.Group`s.
    about: tag -> words for the legend; the second tag is drawn dashed.

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
        curves.append(figures.Curve('%s, %s' % (group.method, about[tag]),
                                    group.method, line, points))
    if curves:
      title = '%s\n%s' % (_title(group.task, groups), group.label)
      panels.append((title, curves))
  return panels


def _line(group, groups):
  """One line style for each label of a method."""
  labels = sorted({g.label for g in groups if g.method == group.method})
  return figures.VARIANTS[labels.index(group.label) % len(figures.VARIANTS)]


def _title(task, groups):
  """The task in words; student and steps where they are not all the same."""
  title = '%s, %s' % (task.dataset, task.noise.name)
  if len({g.task[2:] for g in groups}) > 1:
    title += '\n' + _student(task)
  return title


def _student(task):
  return '%s, %s steps' % (task.student, format(task.steps, ','))


def _published(task, level, method):
  """(paper, published code) at a level of the task's noise; None without."""
  if task.noise.kind != noise.SYMMETRIC_OTHERS:
    return None, None
  return presets.published_accuracy(task.dataset, level, method)


# The page.


def page(runs, groups, pictures, last_k):
  """The report.

  Args:
    runs: a list of `runs.Run`s.
    groups: a list of `runs.Group`s.
    pictures: names of the pictures there are.
    last_k: number of checkpoints that the median is of.

  Returns:
    A list of `Heading`s, `Text`s, `Table`s and `Picture`s.
  """
  blocks = [Text(_count(runs)), Heading('Accuracy')]
  blocks += _accuracy(groups, last_k)
  blocks += [Heading('Comparison')] + _comparison(groups)
  if pictures:
    blocks.append(Heading('Pictures'))
    blocks += [Picture(name, _CAPTIONS[name]) for name in pictures]
  ranked = [run for run in runs if run.scores]
  if ranked:
    blocks += [Heading('Label ranking')] + _ranking(ranked)
  return blocks + [Heading('Runs'), _runs(runs)]


def _count(runs):
  states = collections.Counter(run.state for run in runs)
  finished = states.pop(runs_lib.FINISHED, 0)
  text = '%d runs, %d finished.' % (len(runs), finished)
  if states:
    text += ' Left out of all figures: %s.' % ', '.join(
        '%d %s' % (count, state) for state, count in sorted(states.items()))
  return text


def _accuracy(groups, last_k):
  if not groups:
    return [Text('No run has finished yet.')]
  rows = []
  for g in groups:
    rows.append([
        g.task.dataset, g.task.noise.name, _student(g.task), g.label,
        len(g.runs), g.left_out, g.last, g.peak, g.median(last_k)] + [
            _NONE if figure is None else '%.1f' % figure
            for figure in _published(g.task, g.task.noise.level, g.method)])
  blocks = [
      Text('Top-1 accuracy on the test set in percent: mean ± sample standard '
           'deviation over the runs of a group, which differ in their seed '
           'only. A single run has no deviation. Left out are runs of the '
           'group that are not finished.'),
      Table(['Data', 'Noise', 'Student, steps', 'Method', 'Runs', 'Left out',
             'Last', 'Peak', 'Median of %d' % last_k, 'Paper',
             'Published code'], rows),
      Text('Last: the checkpoint of the last step; this is the figure to '
           'compare. Peak: the best of all checkpoints on the test set, which '
           'nobody could have picked without it. Median: of the last %d '
           'checkpoints, or of all where a run has fewer.' % last_k),
      Text('Paper and published code: ResNet-32 with 29.4 M parameters, '
           '200,000 steps, %s noise. They are no target for a smaller student '
           'or fewer steps.' % noise.SYMMETRIC_OTHERS)]
  kinds = {g.task.noise.kind for g in groups}
  return blocks + [Text('%s: %s.' % item) for item in noise.NOISE_TYPES.items()
                   if item[0] in kinds]


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
            ours.task.dataset, ours.task.noise.name, _student(ours.task),
            ours.label, ours.last, other.label, other.last, _verdict(points),
            _differing(ours, other)])
  if not rows:
    return [Text('No data set, noise, student and number of steps has both '
                 'mentormix and another method.')]
  return [
      Text('mentormix is ahead in %d of %d comparisons, by the mean of the '
           'last checkpoints, in percentage points.' % (ahead, len(rows))),
      Table(['Data', 'Noise', 'Student, steps', 'Method', 'Last', 'Against',
             'Last', 'Verdict', 'Other settings'], rows)]


def _verdict(points):
  if points > 0:
    return 'ahead by %.2f' % points
  return 'not ahead: behind by %.2f' % -points if points else 'not ahead: equal'


def _differing(ours, other):
  """The settings that both methods use and that are not the same."""
  names = [name for name, value in sorted(ours.settings.items())
           if name != 'method' and other.settings.get(name, value) != value]
  return 'not the same: ' + ', '.join(names) if names else 'the same'


def _ranking(runs):
  columns = (('auc', '%.4f'), ('average_precision', '%.4f'),
             ('num_suspected', '%d'), ('precision', '%.4f'),
             ('recall', '%.4f'))
  rows = [[run.path, run.config.method, run.config.seed] + [
      _NONE if run.scores[key] is None else form % run.scores[key]
      for key, form in columns] for run in runs]
  return [
      Text('Training examples ranked by the loss of the label that they were '
           'given. AUC: the chance that a wrong label ranks above a right one. '
           'Precision: the share of the suspected labels that are wrong; '
           'recall: the share of the wrong labels that are suspected.'),
      Table(['Run', 'Method', 'Seed', 'AUC', 'Average precision', 'Suspected',
             'Precision', 'Recall'], rows)]


def _runs(runs):
  rows = []
  for run in runs:
    finished = run.state == runs_lib.FINISHED
    rows.append([
        run.path, run.task.dataset, run.task.noise.name, _student(run.task),
        run.config.method, run.config.seed,
        '%s: %s' % (run.state, run.message) if run.message else run.state,
        '%s of %s' % (format(run.step, ','), format(run.task.steps, ',')),
        '%.2f' % run.last if finished else _NONE,
        '%.2f' % run.peak if finished else _NONE])
  return Table(['Run', 'Data', 'Noise', 'Student, steps', 'Method', 'Seed',
                'State', 'Step', 'Last', 'Peak'], rows)


# The page as Markdown and as HTML.


def to_markdown(title, blocks):
  """The page as a Markdown text, beside which the pictures lie."""
  lines = ['# ' + _plain(title)]
  for block in blocks:
    lines.append('')
    if isinstance(block, Heading):
      lines.append('## ' + _plain(block.text))
    elif isinstance(block, Text):
      lines.append(_plain(block.text))
    elif isinstance(block, Picture):
      lines += ['![%s](%s)' % (block.caption, block.name), '',
                _plain(block.caption)]
    else:
      for row in [block.header, ['---'] * len(block.header)] + block.rows:
        lines.append('| %s |' % ' | '.join(map(_plain, row)))
  return '\n'.join(lines) + '\n'


def _plain(value):
  """Text that Markdown takes for nothing else, on one line."""
  return re.sub(r'([\\`*<>|#\[\]]|(?<!\w)_|_(?!\w))', r'\\\1',
                ' '.join(str(value).split()))


_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --text: #1c1e21; --quiet: #5c6370; --line: #d9dce1; --page: #fff;
  --head: #f3f4f6; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #e4e6ea; --quiet: #a0a7b4; --line: #3a3f47; --page: #17191d;
    --head: #22252b; }}
}}
body {{ margin: 0 auto; max-width: 80rem; padding: 1rem; color: var(--text);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; }}
h2 {{ font-size: 1.25rem; margin-top: 2.5rem; }}
p {{ max-width: 46rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.8125rem; }}
th, td {{ padding: 0.35rem 0.5rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ background: var(--head); }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td.long {{ min-width: 18rem; white-space: normal; overflow-wrap: anywhere; }}
figure {{ margin: 1.5rem 0; }}
figure img {{ display: block; min-width: 34rem; max-width: 100%;
  border-radius: 6px; }}
figcaption {{ color: var(--quiet); font-size: 0.875rem; max-width: 46rem;
  margin-top: 0.5rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def to_html(title, blocks, directory):
  """The page as one HTML file that needs no other.

  Args:
    title: of the page.
    blocks: as from `page`.
    directory: where the pictures are.

  Returns:
    A string.
  """
  parts = []
  for block in blocks:
    if isinstance(block, Heading):
      parts.append('<h2>%s</h2>' % html.escape(block.text))
    elif isinstance(block, Text):
      parts.append('<p>%s</p>' % html.escape(block.text))
    elif isinstance(block, Picture):
      with open(os.path.join(directory, block.name), 'rb') as f:
        data = base64.b64encode(f.read()).decode('ascii')
      caption = html.escape(block.caption)
      parts.append(
          '<figure><div class="wide"><img alt="%s" '
          'src="data:image/png;base64,%s"></div>\n<figcaption>%s</figcaption>'
          '</figure>' % (caption, data, caption))
    else:
      rows = ['<th>%s</th>' % '</th><th>'.join(map(html.escape, block.header))]
      rows += [''.join(map(_html_cell, row)) for row in block.rows]
      parts.append('<div class="wide"><table>\n<tr>%s</tr>\n</table></div>'
                   % '</tr>\n<tr>'.join(rows))
  return _HTML.format(title=html.escape(title), body='\n'.join(parts))


def _html_cell(value):
  text = str(value)
  number = re.match(r'[\d.,]+( ± [\d.]+)?$|%s$' % _NONE, text)
  kind = 'number' if number else 'long' if len(text) > 40 else 'text'
  return '<td class="%s">%s</td>' % (kind, html.escape(text))


# The tables as files.


def group_rows(groups, last_k):
  """The rows of report.csv, a list of dicts; '' where there is no figure."""
  rows = []
  for group in groups:
    row = _task_columns(group.task)
    row.update(method=group.method, group=group.label, runs=len(group.runs),
               left_out=group.left_out)
    for name, figure in (('last', group.last), ('peak', group.peak),
                         ('median_of_%d' % last_k, group.median(last_k))):
      row[name + '_mean'] = _number(figure.mean)
      row[name + '_deviation'] = _number(figure.deviation)
    row['paper'], row['published_code'] = map(
        _number, _published(group.task, group.task.noise.level, group.method))
    rows.append(row)
  return rows


def run_rows(runs, last_k):
  """The rows of runs.csv: what became of each run, and all its settings."""
  rows = []
  for run in runs:
    row = collections.OrderedDict([('path', run.path)])
    row.update(_task_columns(run.task))
    row.update(method=run.config.method, seed=run.config.seed, state=run.state,
               step=run.step, checkpoints=len(run.results))
    finished = run.state == runs_lib.FINISHED
    row['last'] = _number(run.last if finished else None)
    row['peak'] = _number(run.peak if finished else None)
    row['median_of_%d' % last_k] = _number(
        run.median(last_k) if finished else None)
    row['message'] = run.message
    row.update((name, value) for name, value in run.config._asdict().items()
               if name not in row)
    rows.append(row)
  return rows


def _task_columns(task):
  return collections.OrderedDict([
      ('dataset_name', task.dataset), ('noise', task.noise.name),
      ('noise_type', task.noise.kind or ''),
      ('noise_level', '' if task.noise.level is None else task.noise.level),
      ('studentnet', task.student), ('max_number_of_steps', task.steps)])


def _number(value):
  return '' if value is None else '%.4f' % value


def to_csv(rows):
  """The text of a CSV file.

  Args:
    rows: a list of dicts with the same keys; none give an empty text.

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
