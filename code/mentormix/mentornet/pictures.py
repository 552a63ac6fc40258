"""Draws what a MentorNet has learned, as a picture or an animation.

    draw('mentornet.png', learned, epochs=(0, 50, 99), v_star=v_star)
    animate('mentornet.gif', learned, v_star=v_star)

Maps show the weight over the loss and the difference d, which is the loss minus
its moving average. Curves show it along the lines of a map with a constant
moving average. N is a number of points. A network is any function here.
"""
from matplotlib import figure
from matplotlib import ticker
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image

from mentormix import figures
from mentormix.mentornet import loss_traces

AVERAGES = (0.5, 1.0, 2.0)  # Moving averages with a curve.
IDEAL, LEARNED, CURVES = 'ideal v*', 'learned v', 'along a line'

_REACH, _TRACES_REACH = 3, 5  # Largest |d|; the loss goes to twice as much.
_CELLS = 120  # Rows and columns of a map.
_LOSS_P = 0.7  # Percentile of the losses, as their moving average.
_NEAR = 5  # Losses count if they are at most so many percent of training away.
_ALONG = 301  # Points of a curve.
_BIN = 0.25  # Width in d.
_LARGEST_POINT = 60

# Colours of Okabe and Ito that `figures` does not use. Each curve is thinner
# than the one before, which it may cover.
_LOOKS = ({'color': '#56B4E9', 'linewidth': 6},
          {'color': '#CC79A7', 'linewidth': 3.5},
          {'color': '#D55E00', 'linewidth': 1.5})
_POINTS, _BARS = '#0072B2', '0.85'

_FRAME_MS, _LAST_FRAME_MS = 90, 1500
_VEIL = 0.55  # Opacity over the corner of a map that cannot occur.


def draw(path, learned, epochs, v_star=None, traces=None, title=None):
  """Draws a column of panels for each epoch percentage, as a PNG.

  Args:
    path: of the file.
    learned: features [N, 4] (loss, difference, label, epoch) -> v [N].
    epochs: whole numbers from 0 to 99.
    v_star: (loss, difference, label, epoch), [N] each -> ideal weights [N];
      None without a formula.
    traces: the `loss_traces.Traces` it learned from, or None. With traces there
      is one curve, for the moving average of those losses, and the share of
      right labels among them.
    title: of the picture.
  """
  names = [IDEAL, LEARNED] if v_star else [LEARNED]
  rows = len(names) + 1
  fig = figure.Figure(figsize=(1.4 + 1.9 * len(epochs), 0.5 + 1.9 * rows),
                      constrained_layout=True)
  axes = fig.subplots(rows, len(epochs), sharex=True, sharey='row',
                      squeeze=False)
  for column_axes, epoch in zip(axes.T, epochs):
    column = _Column(column_axes, learned, v_star, traces)
    column.show(epoch)
    column_axes[0].set_title(f'{epoch}% of training', fontsize=9)
  for ax, name, quantity in zip(axes[:, 0], names + [CURVES],
                                ['loss'] * len(names) + ['weight']):
    ax.set_ylabel(f'{_bold(name)}\n{quantity}', fontsize=9)
  bar = _add_color_bar(fig, column, ax=list(axes[:-1].ravel()), aspect=30)
  bar.set_label('weight', fontsize=8)
  if title:
    fig.suptitle(figures.literal(title), fontsize=10)
  fig.legend(*axes[-1, 0].get_legend_handles_labels(), loc='upper center',
             bbox_to_anchor=(0.5, 0), ncol=min(4, 2 * len(epochs)),
             frameon=False, fontsize=8)
  # Without the library's version, the same data give the same bytes.
  fig.savefig(path, dpi=110, bbox_inches='tight', metadata={'Software': None})


def animate(path, learned, v_star=None, traces=None, epochs=range(100),
            title=None):
  """Shows the epoch percentages one after the other, as a GIF.

  The arguments are those of `draw`; each of the epochs is a frame.
  """
  names = [IDEAL, LEARNED] if v_star else [LEARNED]
  fig = figure.Figure(figsize=(7, 3.3), dpi=100)
  canvas = backend_agg.FigureCanvasAgg(fig)
  grid = fig.add_gridspec(
      1, len(names) + 3, left=0.07, right=0.985, bottom=0.25, top=0.79,
      width_ratios=[1] * len(names) + [0.05, 0.16, 1.1], wspace=0.15)
  axes = [fig.add_subplot(grid[k]) for k in list(range(len(names))) + [-1]]
  column = _Column(axes, learned, v_star, traces)
  for ax, name in zip(axes, names + ['weight ' + CURVES]):
    ax.set_title(_bold(name), fontsize=9)
    ax.set_xlabel('difference d', fontsize=8)
  for ax in axes[1:-1]:
    ax.tick_params(labelleft=False)
  axes[0].set_ylabel('loss', fontsize=8)
  bar_ax = fig.add_subplot(grid[len(names)])
  bar_ax.set_title('weight', fontsize=8)
  _add_color_bar(fig, column, cax=bar_ax)
  fig.legend(*axes[-1].get_legend_handles_labels(), loc='lower center', ncol=4,
             frameon=False, fontsize=7.5, columnspacing=1.2, handlelength=1.8)
  fig.text(0.07, 0.93, figures.literal(title or ''), fontsize=9)
  done = fig.text(0.985, 0.93, '', ha='right', fontsize=9)
  progress = fig.add_axes([0.07, 0.9, 0.915, 0.015], xlim=(0, 100), xticks=[],
                          yticks=[])
  bar, = progress.barh(0, 0, color='0.3')

  frames = []
  for epoch in epochs:
    column.show(epoch)
    bar.set_width(epoch + 1)
    done.set_text(f'{epoch}% of training')
    canvas.draw()
    frames.append(np.array(canvas.buffer_rgba())[..., :3])
  _write_gif(path, frames)


class _Column:
  """The panels of one epoch percentage; `show` changes it."""

  def __init__(self, axes, learned, v_star, traces):
    """Prepares the axes [map of v* if any, learned map, curves]."""
    self._traces = traces
    self._reach = _REACH if traces is None else _TRACES_REACH
    self._ax = axes[-1]
    self._ax.set(xlim=(-self._reach, self._reach), ylim=(-0.05, 1.05))
    self._ax.set_xlabel('difference d', fontsize=8)
    self._ax.grid(color='0.9', linewidth=0.6)
    self._ax.set_axisbelow(True)
    for ax in axes:
      ax.tick_params(labelsize=8)
      ax.xaxis.set_major_locator(ticker.MultipleLocator(2))
    if traces is not None:
      self._add_traces()
    self._parts = [  # (function with the arguments of v*, its map, its curves)
        (lambda *point: learned(np.stack(point, axis=-1)), self._map(axes[-2]),
         self._learned_curves())]
    if v_star:
      self._parts.append((v_star, self._map(axes[0]), self._ideal_curves()))
    self.image = self._parts[0][1]

  def _map(self, ax):
    """An empty map, with hatches in the corner that cannot occur."""
    reach = self._reach
    image = ax.imshow(
        np.zeros([_CELLS, _CELLS]), extent=(-reach, reach, 0, 2 * reach),
        origin='lower', aspect='auto', interpolation='nearest', vmin=0, vmax=1,
        cmap='viridis')
    ax.fill_between([0, reach], [0, reach], facecolor='white', alpha=_VEIL,
                    edgecolor='0.4', hatch='///', linewidth=0)
    return image

  def _learned_curves(self):
    if self._traces is not None:
      return self._ax.plot([], [], label=LEARNED, **_LOOKS[-1])
    return [self._ax.plot([], [], label=f'{LEARNED}, moving average {a:g}',
                          **look)[0] for a, look in zip(AVERAGES, _LOOKS)]

  def _ideal_curves(self):
    count = len(AVERAGES) if self._traces is None else 1
    return [self._ax.plot([], [], label=None if k else IDEAL, color='black',
                          linewidth=1, linestyle=figures.DASHED)[0]
            for k in range(count)]

  def _add_traces(self):
    """Bars for the distribution of losses, points for their labels."""
    self._edges = np.arange(-self._reach, self._reach + _BIN / 2, _BIN)
    self._points = self._ax.scatter(
        [], [], color=_POINTS, zorder=3, label='share of right labels')
    self._bars = self._ax.bar(
        self._edges[:-1], np.zeros(len(self._edges) - 1), _BIN, align='edge',
        color=_BARS, label='how many losses')
    self._text = self._ax.text(0.5, -0.25, '', transform=self._ax.transAxes,
                               ha='center', va='top', fontsize=6.5)

  def show(self, epoch):
    """Shows an epoch percentage."""
    averages = AVERAGES
    if self._traces is not None:
      averages = [self._show_traces(epoch)]
    cells = (np.arange(_CELLS) + 0.5) / _CELLS * 2 * self._reach
    loss, d = (x.ravel() for x in np.meshgrid(cells, cells - self._reach,
                                              indexing='ij'))
    for average in averages:
      line = np.linspace(-min(average, self._reach), self._reach, _ALONG)
      loss, d = np.append(loss, average + line), np.append(d, line)
    point = loss, d, np.zeros_like(d), np.full_like(d, epoch)
    for function, image, curves in self._parts:
      v = function(*point)
      image.set_data(v[:_CELLS ** 2].reshape(_CELLS, _CELLS))
      for k, curve in enumerate(curves):
        part = slice(_CELLS ** 2 + k * _ALONG, _CELLS ** 2 + (k + 1) * _ALONG)
        curve.set_data(d[part], v[part])

  def _show_traces(self, epoch):
    """Shows the losses around an epoch; returns their moving average."""
    near = np.abs(self._traces.epoch_percent - epoch)
    near = near <= max(_NEAR, near.min())
    loss = self._traces.loss[near]
    right = self._traces.v_star()[near]
    average = loss_traces.percentile(loss, _LOSS_P)
    count, _ = np.histogram(loss - average, self._edges)
    num_right, _ = np.histogram(loss - average, self._edges, weights=right)
    some = count > 0
    self._points.set_offsets(np.stack(
        [self._edges[:-1][some] + _BIN / 2, num_right[some] / count[some]], 1))
    self._points.set_sizes(_LARGEST_POINT * count[some] / count.max())
    for bar, height in zip(self._bars, count / count.max()):
      bar.set_height(height)
    percents = self._traces.epoch_percent[near]
    self._text.set_text(f'losses of {percents.min()}\u2013{percents.max()}%: '
                        f'average {average:.2f}')
    return average


def _bold(text):
  text = text.replace(' ', r'\ ').replace('*', '^*')
  return rf'$\bf{{{text}}}$'


def _add_color_bar(fig, column, **where):
  bar = fig.colorbar(column.image, ticks=[0, 0.5, 1], **where)
  bar.ax.tick_params(labelsize=8)
  return bar


def _write_gif(path, frames):
  """Writes frames, uint8 [H, W, 3] each, as a GIF with one palette."""
  colours = np.reshape(Image.fromarray(np.concatenate(
      frames[::10])).quantize().getpalette(), [-1, 3])
  colours[(colours > 240).all(axis=1)] = 255  # The background stays white.
  shared = Image.new('P', (1, 1))
  shared.putpalette(colours.astype(np.uint8).tobytes())
  images = [Image.fromarray(frame).quantize(palette=shared, dither=0)
            for frame in frames]
  durations = [_FRAME_MS] * (len(images) - 1) + [_LAST_FRAME_MS]
  images[0].save(path, save_all=True, append_images=images[1:],
                 duration=durations, loop=0)
