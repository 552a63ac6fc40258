"""Groups of runs that differ only in their seed, with means over them."""
import collections
import math
import statistics
import typing

from mentormix import config as config_lib
from mentormix.reports import runs as runs_lib

# Runs of one group may differ in these settings. Their task says which data
# set, noise and initialisation they share, however the paths are written.
_MAY_DIFFER = (config_lib.MAY_CHANGE - {'max_number_of_steps'}
               | {'seed', 'data_dir', 'checkpoint_path', 'loss_csv_file'})


class Figure(typing.NamedTuple):
  """A mean over runs."""
  mean: float
  deviation: float  # Sample standard deviation; None for a single run.
  n: int  # Number of runs.

  @classmethod
  def of(cls, values):
    """The figure of these values, one for each run."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return cls(statistics.mean(values), deviation, len(values))

  @property
  def error(self):
    """Standard error of the mean; None for a single run."""
    return self.deviation and self.deviation / math.sqrt(self.n)

  def __str__(self):
    if self.deviation is None:
      return f'{self.mean:.2f}'
    return f'{self.mean:.2f} ± {self.deviation:.2f}'


class Group(typing.NamedTuple):
  """Finished runs that differ only in their seed."""
  task: runs_lib.Task
  method: str  # One of config.METHODS.
  label: str  # The method, and how others of the same task and method differ.
  settings: dict  # Name -> value of the settings that the method uses.
  runs: list  # `runs.Run`s.
  left_out: int  # Number of runs with these settings that are not finished.

  @property
  def last(self):
    return Figure.of([run.last for run in self.runs])

  @property
  def peak(self):
    return Figure.of([run.peak for run in self.runs])

  @property
  def drop(self):
    return Figure.of([run.drop for run in self.runs])

  @property
  def recomputed(self):
    """Of `Run.recomputed`; None if a run has none."""
    return self._if_all('recomputed')

  @property
  def picked(self):
    """Of `Run.picked`; None if a run has none."""
    return self._if_all('picked')

  def _if_all(self, name):
    values = [getattr(run, name) for run in self.runs]
    return None if None in values else Figure.of(values)

  def median(self, k):
    return Figure.of([run.median(k) for run in self.runs])


def group(runs):
  """Puts together the finished runs that differ only in their seed.

  Args:
    runs: a list of `runs.Run`s.

  Returns:
    A list of `Group`s, sorted by data set, noise, student, steps,
    initialisation and method.
  """
  members = collections.defaultdict(list)
  for run in runs:
    unused = _MAY_DIFFER.union(config_lib.unused_settings(run.config.method))
    members[run.task, tuple(
        (name, value) for name, value in sorted(run.config._asdict().items())
        if name not in unused)].append(run)
  groups = []
  for (task, settings), together in members.items():
    finished = [run for run in together if run.state == runs_lib.FINISHED]
    if finished:
      groups.append(Group(
          task, finished[0].config.method, '', dict(settings), finished,
          left_out=len(together) - len(finished)))
  groups = [g._replace(label=_label(g, groups)) for g in groups]
  return sorted(groups, key=_order)


def _label(one, groups):
  """The method, with the settings in which its rivals differ."""
  rivals = [g for g in groups if (g.task, g.method) == (one.task, one.method)]
  differing = ', '.join(
      f'{name} {value:g}' if isinstance(value, float) else f'{name} {value}'
      for name, value in one.settings.items()
      if any(g.settings[name] != value for g in rivals))
  return f'{one.method} ({differing})' if differing else one.method


def _order(one):
  dataset, noise, student, steps, start = one.task
  return (dataset, noise.kind or '', -1 if noise.level is None else noise.level,
          noise.name, student, steps, start,
          config_lib.METHODS.index(one.method), one.label)
