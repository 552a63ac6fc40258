"""A study of methods over levels and kinds of noise: its part of the page.

The questions are those of "Beyond Synthetic Noise" (Jiang et al., ICML 2020):
which method is best at which level, whether early stopping matters, how kinds
of noise differ, and what fine-tuning changes. A frame is what all methods of a
table share: data set, kind of noise, student, steps and initialisation.
"""
import collections
import itertools
import statistics

from mentormix import config
from mentormix.data import noise
from mentormix.reports import blocks
from mentormix.reports import groups as groups_lib
from mentormix.reports.blocks import Block, mark

CAPTIONS = {
    'accuracy_vs_noise.png':
        'Accuracy of the last checkpoint by noise level. Bars: standard '
        'deviation over the seeds. Dashed, hollow: the paper, beside runs of '
        'its student.',
    'drop_vs_noise.png':
        'Drop, peak minus final accuracy, by noise level: what ideal early '
        'stopping would gain. ' + blocks.PEAK_NOTE[2:],
    'kinds_vs_noise.png':
        'Final accuracy on the same images with different kinds of noise, by '
        'the share of wrong labels counted in the data.',
    'initialisation_vs_noise.png':
        'Final accuracy from scratch and fine-tuned.',
}


def is_one(groups):
  """Whether groups span two noise levels, kinds or initialisations.

  Groups with an unknown noise level do not count, nor are they in the study.
  """
  return len({(*g.task.noise[:2], g.task.start) for g in groups
              if g.task.noise.level is not None}) > 1


def section(groups, pictures):
  """The `Block`s of the study.

  Args:
    groups: a list of `groups.Group`s, for which `is_one` holds.
    pictures: names of the pictures that were drawn, of `CAPTIONS` and others.
  """
  frames = frames_of(groups)
  found = [
      Block(heading='Study'),
      Block(text='Top-1 accuracy on the clean test set in percent. Final: the '
                 'last checkpoint. Drop: peak minus final. ± is the sample '
                 'standard deviation, over the runs with different seeds or '
                 'over the noise levels. n: the runs behind a cell. The best '
                 'accuracy is bold.'),
      Block(text=blocks.PEAK_NOTE), Block(text=blocks.PICKED_NOTE),
      *([Block(text=blocks.RECOMPUTED_NOTE)]
        if any(g.recomputed for g in groups) else []),
      Block(subheading='Does early stopping matter?'), _summary(frames)]
  draw = lambda *names: [Block(picture=name, caption=CAPTIONS[name])
                         for name in names if name in pictures]
  found += draw('accuracy_vs_noise.png', 'drop_vs_noise.png')
  for task, members in frames.items():
    members.sort(key=lambda g: config.METHODS.index(g.method))
    found += [Block(subheading=', '.join(task.cells)), _levels(members)]
    for table, text in (
        (_paired(members, 'last'),
         'Final accuracy of the row minus that of the column: mean ± standard '
         'error of the pairs of runs with the same data, noise level and seed, '
         'whose number is in brackets. Bold: more than twice the standard '
         'error.'),
        (_paired(members, 'recomputed'), 'The same with recomputed statistics.'
        )):
      found += [Block(text=text), table] if table else []
  for title, text, tables, picture in (
      ('Kinds of noise', 'The same images, student and steps, at levels that '
       'agree to the percent. In brackets: the share of wrong labels counted '
       'in the data.', _kinds_tables(groups), 'kinds_vs_noise.png'),
      ('From scratch or fine-tuned', 'The same data, student and steps.',
       _starts_tables(groups), 'initialisation_vs_noise.png')):
    if tables:
      found += [Block(subheading=title), Block(text=text), *tables,
                Block(text=blocks.PEAK_NOTE), *draw(picture)]
  return found


def frames_of(groups):
  """Task without a noise level -> its groups; those with unknown level not."""
  frames = collections.defaultdict(list)
  for g in groups:
    if g.task.noise.level is not None:
      frames[g.task.over_levels].append(g)
  return dict(frames)


# Tables of one frame, or a row for each.


def _summary(frames):
  """Final against peak: means over methods and levels, a row per frame."""
  rows = []
  for task, members in frames.items():
    highest = max(g.task.noise.level for g in members)
    mean = lambda name, chosen: statistics.mean(
        getattr(g, name).mean for g in chosen)
    picked = [g for g in members if g.picked]
    rows.append(task.cells + [sum(len(g.runs) for g in members), *(
        f'{mean(name, members):.2f}' for name in ('last', 'peak', 'drop')),
        '{:.2f} (at {:.0%})'.format(
            mean('drop', [g for g in members
                          if g.task.noise.level == highest]), highest),
        f'{mean("picked", picked) - mean("last", picked):+.2f}'
        if picked else '–'])
  return Block(header=['Data', 'Noise', 'Student, steps', 'Runs', 'Final',
                       blocks.PEAK, 'Drop', 'Drop at the highest level',
                       f'{blocks.PICKED}, minus final'], rows=rows)


def _levels(members):
  """A row for each measure and method, a column for each level.

  With one level, there is a row for each method, a column for each measure.
  """
  noises = sorted({g.task.noise for g in members}, key=lambda n: n.level)
  by_place = {(g.label, g.task.noise): g for g in members}
  labels = list(dict.fromkeys(g.label for g in members))
  measures = {}  # Title -> a column of cells for each level, and their mean.
  for title, name in (('Final', 'last'), (blocks.PEAK, 'peak'),
                      ('Drop', 'drop'), (blocks.PICKED, 'picked'),
                      (blocks.RECOMPUTED, 'recomputed')):
    columns = [[getattr(by_place.get((label, level)), name, None)
                for label in labels] for level in noises]
    if not any(itertools.chain.from_iterable(columns)):
      continue
    if len(noises) > 1:
      columns.append([None if None in cells else groups_lib.Figure.of(
          [figure.mean for figure in cells]) for cells in zip(*columns)])
    measures[title] = [mark(column, name != 'drop') for column in columns]
  counts = sorted({len(g.runs) for g in members})
  runs = '–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))
  header = [level.name if level.kind == noise.FILE else f'{100 * level.level:g}%'
            for level in noises]
  if len(noises) == 1:
    return Block(header=[f'{header[0]}, n = {runs}', *measures], rows=[
        list(row) for row in zip(labels, *(column for column,
                                           in measures.values()))])
  rows = [[title if label == labels[0] else '', label, *cells]
          for title, columns in measures.items()
          for label, *cells in zip(labels, *columns)]
  return Block(header=[f'n = {runs}', 'Method', *header,
                       f'Mean over {len(noises)} levels'], rows=rows)


def _paired(members, name):
  """Differences between methods on the same data, level and seed; or None.

  `name` is that of a measure of the runs; those without it do not count.
  """
  runs = collections.defaultdict(dict)  # Label -> data, level, seed -> value.
  for g in members:
    for run in g.runs:
      if getattr(run, name) is not None:
        runs[g.label][run.task, run.config.seed, run.facts.get('seed'),
                      run.facts.get('holdout')] = getattr(run, name)
  rows = []
  for one, other in itertools.product(runs, repeat=2):
    if other == next(iter(runs)):
      rows.append([one])
    both = runs[one].keys() & runs[other].keys()
    if one == other or not both:
      rows[-1].append('–')
      continue
    figure = groups_lib.Figure.of(
        [runs[one][key] - runs[other][key] for key in sorted(both, key=str)])
    if figure.error is None:
      rows[-1].append(f'{figure.mean:+.2f} (1)')
      continue
    cell = f'{figure.mean:+.2f} ± {figure.error:.2f} ({figure.n})'
    rows[-1].append(blocks.Best(cell) if abs(figure.mean) > 2 * figure.error
                    else cell)
  if len(runs) < 2:
    return None
  return Block(header=['', *(f'minus {label}' for label in runs)], rows=rows)


# Contrasts: tables and pictures of what differs in one respect.


def kinds(groups):
  """What differs only in the kind of noise: see `_contrast`."""
  def place(g):
    name, kind = g.task.dataset, g.task.noise.kind
    if kind in (noise.RED, noise.BLUE) and name.endswith(f'_{kind}'):
      name = name[:-len(kind) - 1]  # They have the same images.
    return (name, g.task.student_and_steps, g.label,
            round(g.task.noise.level, 2))
  return _contrast(groups, place, lambda g: g.task.noise.kind_name)


def starts(groups):
  """What differs only in the initialisation: see `_contrast`."""
  return _contrast(
      groups, lambda g: (f'{g.task.dataset}, {g.task.over_levels.noise.name}',
                         g.task._replace(start='').student_and_steps, g.label,
                         g.task.noise.level),
      lambda g: g.task.initialisation)


def _contrast(groups, place, value):
  """Groups by place and value, at the places that have two values or more.

  Args:
    groups: a list of `groups.Group`s.
    place: group -> (data set, student and steps, label, level).
    value: group -> what differs, a string.

  Returns:
    Place -> {value: the runs there}.
  """
  found = collections.defaultdict(lambda: collections.defaultdict(list))
  for g in groups:
    if g.task.noise.level is not None:
      found[place(g)][value(g)] += g.runs
  return {where: dict(runs) for where, runs in found.items() if len(runs) > 1}


def values_of(contrast):
  """All values of a contrast, in the order of the groups."""
  return list(dict.fromkeys(itertools.chain.from_iterable(contrast.values())))


def realised(runs):
  """The mean share of wrong labels counted in their data; None if unknown."""
  rates = [run.facts.get('rate_realised') for run in runs]
  return None if None in rates else statistics.mean(rates)


def _kinds_tables(groups):
  def level_in_words(level, by_value):
    rates = {value: realised(runs) for value, runs in by_value.items()}
    known = ', '.join(f'{value} {rate:.1%}' for value, rate in rates.items()
                      if rate is not None)
    return f'{100 * level:g}%' + (f' ({known})' if known else '')
  return _contrast_tables(kinds(groups), level_in_words)


def _starts_tables(groups):
  return _contrast_tables(starts(groups), lambda level, _: f'{100 * level:g}%')


def _contrast_tables(contrast, level_in_words):
  """A text and a table for each data set, student and number of steps."""
  found = []
  by_frame = lambda place: place[:2]
  for frame, places in itertools.groupby(sorted(contrast, key=by_frame),
                                         by_frame):
    places = sorted(places, key=lambda place: place[3])
    here = {place: contrast[place] for place in places}
    for name, title in (('last', 'Final'), ('recomputed', blocks.RECOMPUTED)):
      known = {place: runs for place, runs in here.items() if all(
          getattr(run, name) is not None
          for run in itertools.chain.from_iterable(runs.values()))}
      if known:
        header, *rows = _contrast_rows(known, level_in_words, name, title)
        found += [Block(text=', '.join(frame)),
                  Block(header=header, rows=rows)]
  return found


def _contrast_rows(contrast, level_in_words, name, title):
  """The header; accuracy and its difference to the first value; and drop.

  Args:
    contrast: as from `_contrast`, of one data set and student, by level.
    level_in_words: a function of a level and its value -> runs.
    name, title: of the accuracy; the drop is that of `last`.
  """
  values = values_of(contrast)
  first, *others = values
  with_drop = values if name == 'last' else []
  yield ['Level', 'Method', *(f'{title}, {value}' for value in values),
         *(f'{value} minus {first}' for value in others),
         *(f'Drop, {value}' for value in with_drop)]
  for level, places in itertools.groupby(contrast, lambda place: place[3]):
    places = list(places)
    finals, drops = (
        [[groups_lib.Figure.of([getattr(run, measure)
                                for run in contrast[p][v]])
          if v in contrast[p] else None for p in places] for v in shown]
        for measure, shown in ((name, values), ('drop', with_drop)))
    differences = [['–' if None in pair else
                    f'{pair[1].mean - pair[0].mean:+.2f}'
                    for pair in zip(finals[0], column)]
                   for column in finals[1:]]
    words = level_in_words(level, contrast[places[0]])
    for place, *cells in zip(places, *map(mark, finals), *differences,
                             *(mark(column, False) for column in drops)):
      yield [words if place == places[0] else '', place[2], *cells]
