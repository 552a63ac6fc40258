"""The pictures of a report: what `figures` draws of the runs."""
import os

from mentormix import config
from mentormix import figures
from mentormix import presets
from mentormix.reports import runs

_SMOOTHED = 0.05  # Share of the training that a running mean covers.


def draw(groups, directory):
  """Draws every picture that there are data for.

  Args:
    groups: a list of `groups.Group`s.
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
        [([r.step for r in run.eval_results],
          [100 * r.top1 for r in run.eval_results]) for run in group.runs]))
  return list(panels.items())


def _noise_panels(groups):
  """A panel per data set, definition of noise, student and number of steps."""
  panels = {}
  for group in groups:
    kind, level, _ = group.task.noise
    if level is None:
      continue
    task = group.task._replace(noise=runs.Noise(
        kind, None, kind or 'definition not recorded'))
    curves = panels.setdefault(task, {})
    curves.setdefault(
        (group.label, group.method, _line(group, groups)), []).append(
            (level, group.last.mean, group.last.deviation))
    paper = [(level, task.published(level, group.method)[0], None)
             for level in presets.LEVELS]
    if paper[0][1] is not None:
      curves[f'{group.method}, paper', group.method, figures.DASHED] = paper
  return [(_title(task, groups), [figures.Curve(*look, points)
                                  for look, points in curves.items()])
          for task, curves in panels.items()]


def _summary_panels(groups, about):
  """A panel per group with a weighting method whose runs have summaries.

  `about` has two tags -> words for the legend; the second tag is drawn dashed.
  """
  panels = []
  for group in groups:
    curves = []
    for tag, line in zip(about, (figures.SOLID, figures.DASHED)):
      points = [figures.smooth(*run.series[tag],
                               width=_SMOOTHED * group.task.steps)
                for run in group.runs if tag in run.series]
      points = [(steps, values) for steps, values in points if len(steps)]
      if points and group.method in config.SELECTIVE:
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
    title += f'\n{task.student_and_steps}'
  return title
