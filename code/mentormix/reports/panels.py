"""The pictures of a report: what `figures` draws of the runs."""
import itertools
import os

from mentormix import config
from mentormix import figures
from mentormix import presets
from mentormix.data import noise
from mentormix.reports import groups as groups_lib
from mentormix.reports import study

_LOOKS_OF_NOISE = {noise.BLUE: 3, noise.RED: 4}  # In their colours.
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
  drawn, is_study = [], study.is_one(groups)
  for name, function, panels, options in (
      ('drop_vs_noise.png', figures.over_levels,
       is_study and _noise_panels(groups, 'drop'),
       dict(ylabel='peak minus final accuracy, points', sharey=True)),
      ('kinds_vs_noise.png', figures.over_levels,
       _contrast_panels(study.kinds(groups), study.realised),
       dict(xlabel='wrong labels, % of all', sharey=True, columns=3)),
      ('initialisation_vs_noise.png', figures.over_levels,
       _contrast_panels(study.starts(groups), lambda _: None),
       dict(xlabel='noise level, %', sharey=True, columns=3)),
      ('accuracy_vs_step.png', figures.over_training, _step_panels(groups),
       dict(ylabel='accuracy on the test set, %')),
      ('accuracy_vs_noise.png', figures.over_levels,
       _noise_panels(groups, 'last'), dict(sharey=True)),
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


def _noise_panels(groups, measure):
  """A panel per task but for the level; `measure` is a property of a group."""
  panels = {}
  for group in groups:
    level, task = group.task.noise.level, group.task.over_levels
    if level is None:
      continue
    curves = panels.setdefault(task, {})
    curves.setdefault(
        (group.label, group.method, _line(group, groups)), []).append(
            (level, *getattr(group, measure)[:2]))
    paper = [(level, task.published(level, group.method)[0], None)
             for level in presets.LEVELS]
    if (measure == 'last' and paper[0][1] is not None
        and task.student == config.TrainConfig().studentnet):
      curves[f'{group.method}, paper', group.method, figures.DASHED] = paper
  return [(_title(task, groups), [figures.Curve(*look, points)
                                  for look, points in curves.items()])
          for task, curves in panels.items()]


def _contrast_panels(contrast, place):
  """A panel per data set, student and method; a curve for each value.

  `place` is a function of runs: where a point lies, if not at its level.
  """
  values = study.values_of(contrast)
  free = (k for k in itertools.count() if k not in _LOOKS_OF_NOISE.values())
  looks = {value: _LOOKS_OF_NOISE.get(value, next(free)) for value in values}
  panels = {}
  for (*where, level), by_value in contrast.items():
    curves = panels.setdefault(tuple(where), {})
    for value, runs in by_value.items():
      figure = groups_lib.Figure.of([run.last for run in runs])
      x = place(runs)
      curves.setdefault(value, []).append(
          (level if x is None else x, figure.mean, figure.deviation))
  differ = len({where[:2] for where in panels}) > 1
  return [('\n'.join(where if differ else where[2:]),
           [figures.Curve(value, looks[value], figures.SOLID, curves[value])
            for value in values if value in curves])
          for where, curves in panels.items()]


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
