"""What a report's page consists of: headings, texts, tables, pictures."""
import typing

PEAK = 'Peak*'  # Header of a column; `PEAK_NOTE` belongs below its table.
PEAK_NOTE = ('* Peak: the best of all checkpoints on the test set. It is not '
             'to be had without a clean test set.')
RECOMPUTED = 'Recomputed statistics'
RECOMPUTED_NOTE = (
    f'{RECOMPUTED}: the last checkpoint, with statistics of batch norm that '
    'evaluation recomputes from training images. The published evaluation, '
    'everywhere else on this page, averages the weights and takes the moving '
    'statistics of those that are not averaged, which scatters.')
PICKED = 'Stopped early'
PICKED_NOTE = (f'{PICKED}: test accuracy of the checkpoint that is best on '
               'held-out training images with noisy labels, the first of '
               'equals. No clean label is needed to find it.')


class Block(typing.NamedTuple):
  """A part of the page; one of its kinds."""
  heading: str = ''
  subheading: str = ''
  text: str = ''
  header: list = ()  # Of a table.
  rows: list = ()  # Lists of cells; str() gives their text.
  picture: str = ''  # Name of the file.
  caption: str = ''


class Best(str):
  """A cell of a table that is marked as the best of its column."""
  is_best = True


def number(value, form, missing='–'):
  """A number in a format; `missing` stands for None."""
  return missing if value is None else format(value, form)


def mark(values, has_best=True):
  """Cells of values, of which the highest ones are `Best`.

  Args:
    values: `groups.Figure`s; None for what is missing.
    has_best: whether one of them is the best at all.

  Returns:
    A list of strings; equal in two decimals counts as equal. A value without
    rivals is not marked.
  """
  means = [round(value.mean, 2) for value in values if value]
  is_best = lambda value: (has_best and len(means) > 1
                           and round(value.mean, 2) == max(means))
  return ['–' if not value else Best(value) if is_best(value) else str(value)
          for value in values]
