"""What a MentorNet is to learn, and the files that the result consists of."""
import os
import typing

from mentormix import files
from mentormix.mentornet import curriculum
from mentormix.mentornet import loss_traces
from mentormix.messages import UserError

NETWORK, METRICS = 'mentornet.pb', 'metrics.json'
PICTURE, ANIMATION, CARD = 'curriculum.png', 'curriculum.gif', 'README.md'
FILES = {NETWORK, METRICS, PICTURE, ANIMATION, CARD}
MODELS_DIR = 'mentornet_models'
DATA = '.csv'  # The ending of a file of loss traces.
NUM_POINTS, HELD_OUT = 100000, 0.2
_ABOUT_DATA = '1 where the label is right, else 0; learned from losses.'


class Lesson(typing.NamedTuple):
  """What a MentorNet is to learn."""
  name: str  # Of the curriculum.
  about: str  # v* in words, for the card.
  phases: tuple  # (first, last) epoch percentages to report separately.
  v_star: typing.Callable  # The formula (see `curriculum`), or None.
  traces: loss_traces.Traces  # The source if there is no formula, or None.
  learn_from: tuple  # (features [N, 4], v_star [N]).
  held_out: tuple  # The same, to test on.
  facts: dict  # The source, for metrics.json.


def target(name):
  """Finds what a MentorNet is to follow, or is compared with.

  Args:
    name: a curriculum, as for `curriculum.get`, or a CSV file of loss traces.

  Returns:
    (a `Curriculum`, the `Traces` or None). The curriculum of traces has no
    formula.

  Raises:
    UserError: there is no such curriculum or file.
  """
  try:
    if not name.endswith(DATA):
      return curriculum.get(name), None
    traces = loss_traces.read(name)
  except UserError as error:
    raise UserError(f'--curriculum: {error}')
  stem = os.path.splitext(os.path.basename(name))[0]
  return (curriculum.Curriculum(stem, None, _ABOUT_DATA, curriculum.ALWAYS),
          traces)


def get(source, loss_p_percentiles, seed):
  """Makes the `Lesson` of a curriculum.

  Args:
    source: a predefined curriculum, a Python file or a CSV file.
    loss_p_percentiles: floats from 0 to 1, for a CSV file.
    seed: chooses the points.

  Raises:
    UserError: there is no such curriculum, or nothing can be learned from it.
  """
  chosen, traces = target(source)
  facts = {}
  if os.path.splitext(source)[1]:
    facts['file'] = source
  if traces:
    try:
      points = loss_traces.training_set(
          traces, loss_p_percentiles, HELD_OUT, seed)
    except UserError as error:
      raise UserError(f'--curriculum: {error}')
    facts.update(rows=len(traces.loss), samples=len(set(traces.sample_id)),
                 right=round(float(traces.v_star().mean()), 4),
                 loss_p_percentiles=loss_p_percentiles)
  else:
    points = curriculum.training_set(chosen, NUM_POINTS, HELD_OUT, seed)
  if facts:
    facts['sha256'] = files.sha256_of(source)
  return Lesson(chosen.name, chosen.about, chosen.phases, chosen.v_star, traces,
                *points, facts)
