"""Pictures of training runs: plain data in, a PNG file out.

A method has the same colour and marker in every picture. Most colours are
Okabe and Ito's, which the colour blind can tell apart; markers also work in
grey.
"""
import math
import textwrap
import typing

from matplotlib import figure
from matplotlib import font_manager
from matplotlib import ft2font
from matplotlib import ticker
import numpy as np

from mentormix import config

SOLID, DASHED = '-', '--'
VARIANTS = (SOLID, '-.', ':', (0, (6, 1, 1, 1, 1, 1)))  # Of one method.

# In the order of config.METHODS.
_LOOKS = [dict(color=color, marker=marker) for color, marker in (
    ('#555555', 'o'), ('#D55E00', 'v'), ('#8C510A', 'p'), ('#CC79A7', 'P'),
    ('#56B4E9', 'X'), ('#999933', '<'), ('#882255', '>'), ('#E69F00', '^'),
    ('#009E73', 's'), ('#0072B2', 'D'))]
_COLUMNS = 2
_WIDTH, _LETTERS = 3.6, 52  # Of a panel in inches; of a line of its title.

# Frames of images: is the label wrong -> colour, meaning.
_FRAMES = {
    True: ('green', 'the clean label is another'),
    False: ('red', 'the clean label is the same'),
    None: ('grey', 'the clean label is not known')}


class Curve(typing.NamedTuple):
  """What is drawn in one colour."""
  label: str  # For the legend; one label looks the same in all panels.
  look: object  # One of config.METHODS, or a number.
  line: object  # SOLID, DASHED or one of VARIANTS.
  points: list  # As the function that draws it requires.


def look(of):
  """Colour and marker of a method, or those with a number."""
  number = config.METHODS.index(of) if isinstance(of, str) else of
  return _LOOKS[number % len(_LOOKS)]


def smooth(steps, values, width):
  """The running mean of a series, without its values that are not finite.

  Args:
    steps: [N], ascending.
    values: [N].
    width: of the window around each step, in steps.

  Returns:
    (steps [M], means [M]) of the M finite values.
  """
  steps, values = np.asarray(steps, float), np.asarray(values, float)
  steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
  sums = np.concatenate([[0], np.cumsum(values)])
  first = np.searchsorted(steps, steps - width / 2, 'left')
  end = np.searchsorted(steps, steps + width / 2, 'right')
  return steps, (sums[end] - sums[first]) / np.maximum(end - first, 1)


def over_training(panels, ylabel, path, ylim=(None, None)):
  """Draws curves over the steps: thin for every seed, thick for their mean.

  Args:
    panels: a list of (title, `Curve`s); `points` of a curve is a list with
      (steps, values) of each seed.
    ylabel: what the values are, with their unit.
    path: of the PNG.
    ylim: lowest and highest value shown; None fits the values.
  """
  fig, axes = _panels(panels, sharey=ylim != (None, None))
  for ax, (_, curves) in zip(axes, panels):
    for curve in curves:
      style = look(curve.look)
      for steps, values in curve.points if len(curve.points) > 1 else ():
        ax.plot(steps, values, linestyle=curve.line, color=style['color'],
                linewidth=0.6, alpha=0.5)
      ax.plot(*_mean(curve.points), linestyle=curve.line, linewidth=1.8,
              markevery=0.2, markersize=4, label=curve.label, **style)
    ax.set_ylim(*ylim)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
  _save(fig, axes, 'training step', ylabel, path)


def _mean(points):
  """The mean of series with different steps, where all of them have values."""
  start = max(steps[0] for steps, _ in points)
  end = min(steps[-1] for steps, _ in points)
  grid = np.unique(np.concatenate([steps for steps, _ in points]))
  grid = grid[(grid >= start) & (grid <= end)]
  return grid, np.mean(
      [np.interp(grid, steps, values) for steps, values in points], axis=0)


def over_levels(panels, path, ylabel='accuracy on the clean test set, %',
                xlabel='noise level, % of the training labels', sharey=False,
                columns=_COLUMNS):
  """Draws accuracy, or a difference, over the noise level, with error bars.

  Args:
    panels: a list of (title, `Curve`s); `points` of a curve is a list of
      (level, mean, standard deviation or None), in shares and percent. Dashed
      curves are figures that others measured.
    path: of the PNG.
    ylabel, xlabel: what is drawn, with its unit.
    sharey: whether all panels have one scale.
    columns: of panels; with more of them, panels are smaller.
  """
  fig, axes = _panels(panels, sharey, columns)
  for ax, (_, curves) in zip(axes, panels):
    for curve in curves:
      levels, means, deviations = zip(*sorted(
          (100 * level, mean, deviation or 0)
          for level, mean, deviation in curve.points))
      measured = curve.line != DASHED
      ax.errorbar(
          levels, means, deviations, linestyle=curve.line, capsize=3,
          markersize=5, markerfacecolor=None if measured else 'white',
          linewidth=1.8 if measured else 1.0, label=curve.label,
          **look(curve.look))
    ax.set_xlim(0, 100)
  _save(fig, axes, xlabel, ylabel, path, columns)


def _panels(panels, sharey, most_columns=_COLUMNS):
  """A figure with an `Axes` for each (title, curves): (figure, axes)."""
  columns = min(len(panels), most_columns)
  rows = -(-len(panels) // columns)
  scale = math.sqrt(_COLUMNS / most_columns)
  fig = figure.Figure(constrained_layout=True, figsize=(
      0.4 + scale * _WIDTH * columns, scale * 2.9 * rows))
  axes = fig.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
  for ax in axes[len(panels):]:
    ax.set_visible(False)
  for ax, (title, _) in zip(axes, panels):
    lines = [textwrap.fill(line, int(scale * _LETTERS))
             for line in title.split('\n')]
    ax.set_title(literal('\n'.join(lines)), fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color='0.9', linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ('top', 'right'):
      ax.spines[side].set_visible(False)
  return fig, axes[:len(panels)]


def literal(text):
  """The text with its dollar signs escaped, so that they start no formula."""
  return text.replace('$', r'\$')


def find_font(texts):
  """Finds a font of this machine that can draw some texts.

  Returns:
    A matplotlib FontProperties; None if no font has all of their letters.
  """
  letters = {ord(letter) for letter in ''.join(texts) if letter.isprintable()}
  default = font_manager.FontProperties()
  for path in [font_manager.findfont(default)] + sorted(
      font_manager.findSystemFonts()):
    try:
      if letters <= ft2font.FT2Font(path).get_charmap().keys():
        return font_manager.FontProperties(fname=path)
    except RuntimeError:  # It is not a font that matplotlib can draw.
      continue
  return None


def _save(fig, axes, xlabel, ylabel, path, columns=_COLUMNS):
  """Adds labels and one legend below, and writes the file."""
  handles = {}
  for number, ax in enumerate(axes):
    ax.set_xlabel(xlabel, fontsize=8)
    if number % columns == 0:
      ax.set_ylabel(ylabel, fontsize=8)
    for handle, label in zip(*ax.get_legend_handles_labels()):
      handles.setdefault(label, handle)
  fig.legend(handles.values(), map(literal, handles), loc='upper center',
             bbox_to_anchor=(0.5, 0), ncol=2, frameon=False, fontsize=8,
             handlelength=3)
  # Without the library's version, the same data give the same bytes.
  fig.savefig(path, dpi=150, bbox_inches='tight', metadata={'Software': None})


def labelled_images(images, titles, is_wrong, caption, font=None):
  """Draws images with titles; their frames say whether the label is wrong.

  Args:
    images: uint8 [N, H, W, 3].
    titles: N strings.
    is_wrong: N times True, False, or None if it is not known.
    caption: what the picture shows.
    font: of the titles, from `find_font`.

  Returns:
    A matplotlib Figure.
  """
  columns = max(8, int(np.ceil(np.sqrt(len(images)))))
  rows = -(-len(images) // columns)
  height = 1.5 * rows + 0.7
  fig = figure.Figure(figsize=(1.35 * columns, height))
  fig.subplots_adjust(left=0.01, right=0.99, bottom=0.1 / height,
                      top=1 - 1.0 / height, wspace=0.15, hspace=0.5)
  for n, (image, title, wrong) in enumerate(zip(images, titles, is_wrong)):
    ax = fig.add_subplot(rows, columns, n + 1)
    ax.imshow(image, interpolation='nearest')
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
      spine.set(color=_FRAMES[wrong][0], linewidth=3)
    ax.set_title(literal(textwrap.fill(title, 16, max_lines=3)),
                 fontproperties=font, fontsize=8)
  legend = ', '.join(
      f'{colour} frame: {meaning} ({is_wrong.count(kind)})'
      for kind, (colour, meaning) in _FRAMES.items() if kind in is_wrong)
  fig.suptitle(f'{caption}\n{legend}', fontsize=10, y=1 - 0.1 / height,
               va='top')
  return fig
