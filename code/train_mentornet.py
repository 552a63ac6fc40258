r"""Learns a predefined curriculum and freezes it as a MentorNet.

    python code/train_mentornet.py --curriculum=mentornet_pd

writes mentornet_models/mentornet_pd with the frozen network (mentornet.pb), its
errors and settings (metrics.json), a picture of what it learned
(curriculum.png) and a card (README.md). By default the settings are those of
the published MentorNet. It takes well under a minute on one core.
"""
import collections
import contextlib
import functools
import json
import os
import signal
import sys
import textwrap
import time

from absl import flags
import numpy as np
import tqdm

from mentormix import curriculum
from mentormix import command
from mentormix import files
from mentormix.command import UserError

NETWORK, METRICS = 'mentornet.pb', 'metrics.json'
PICTURE, CARD = 'curriculum.png', 'README.md'
MODELS_DIR = 'mentornet_models'
NUM_ROWS, HELD_OUT = 100000, 0.2
LINES = 5  # Log lines per run where there is no terminal.
AVERAGES = (0.5, 1.0, 2.0)  # Moving averages that the picture shows.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_enum(
      'curriculum', 'mentornet_pd', sorted(curriculum.CURRICULA),
      '; '.join('%s: %s' % (name, c.about.rstrip('.'))
                for name, c in sorted(curriculum.CURRICULA.items())) + '.')
  flags.DEFINE_string(
      'output_dir', None, 'The directory to write; by default %s/<curriculum>.'
      % MODELS_DIR)
  flags.DEFINE_integer(
      'seed', 0, 'Of the points, the initial weights and the batches.',
      lower_bound=0, upper_bound=2 ** 31 - 1)
  flags.DEFINE_integer('max_number_of_steps', 30000, 'Steps to learn for.',
                       lower_bound=1)
  flags.DEFINE_integer('batch_size', 32, 'Points per step.', lower_bound=1)
  flags.DEFINE_float('learning_rate', 0.1, 'Initial learning rate of Adam.')
  flags.register_validator(
      'learning_rate', lambda rate: 0 < rate < float('inf'),
      'must be a number above 0')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace a model that an earlier run has made.')


def main():
  """Flags -> points -> network -> files."""
  args = flags.FLAGS
  name = args.curriculum
  path = os.path.normpath(args.output_dir or os.path.join(MODELS_DIR, name))
  check_output(path, args.overwrite)
  for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _stop)
  # Tiny operations: several threads would only wait for one another.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  # pylint: disable=g-import-not-at-top
  import matplotlib.figure  # noqa: F401  If missing, fail before learning.
  from mentormix import mentornet
  from mentormix import mentornet_training
  from mentormix import runtime
  settings = mentornet_training.PUBLISHED._replace(
      seed=args.seed, max_number_of_steps=args.max_number_of_steps,
      batch_size=args.batch_size, learning_rate=args.learning_rate)

  chosen = curriculum.CURRICULA[name]
  (features, v_star), held_out = curriculum.training_set(
      chosen, NUM_ROWS, HELD_OUT, settings.seed)
  print('Learning %s in %d steps.' % (name, settings.max_number_of_steps))
  sys.stdout.flush()
  start = time.time()
  with _progress(settings.max_number_of_steps) as on_step:
    weights = mentornet_training.learn(
        features, v_star, chosen.binary, settings, on_step)
  seconds = time.time() - start

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # Writing takes a second.
  with files.new_directory(path) as directory:
    mentornet.freeze(weights, directory)
    network = mentornet.load(directory)  # From here on, what users will load.
    metrics = collections.OrderedDict([
        ('curriculum', name),
        ('held_out', mentornet_training.held_out_errors(
            network, held_out[0], held_out[1], chosen.phases)),
        ('loss', 'sigmoid cross-entropy' if chosen.binary else 'squared error'),
        ('rows', NUM_ROWS),
        ('held_out_share', HELD_OUT),
        ('settings', collections.OrderedDict(
            sorted(settings._asdict().items()))),
        ('tensorflow', runtime.VERSION),
        ('seconds', round(seconds, 1)),
    ])
    _write(os.path.join(directory, METRICS), json.dumps(metrics, indent=2))
    figure = draw(chosen, functools.partial(
        mentornet_training.apply_network, network))
    figure.savefig(os.path.join(directory, PICTURE), dpi=110,
                   bbox_inches='tight')
    _write(os.path.join(directory, CARD),
           card(metrics, mentornet_training.PUBLISHED._asdict(), path))
  print('%s: %s; mean absolute error %.5f on %d held-out rows, %.1f s'
        % (path, name, metrics['held_out']['mean_absolute_error'],
           metrics['held_out']['rows'], seconds))


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


def _stop(number, unused_frame):
  """Ends the process at once, whatever it is doing.

  An exception would not do: where TensorFlow calls back into Python, in
  destructors for one, it is swallowed, and learning goes on.
  """
  os.write(2, b'\nStopped by signal %d; nothing was written.\n' % number)
  os._exit(128 + number)  # pylint: disable=protected-access


@contextlib.contextmanager
def _progress(total):
  """Gives on_step: a bar on a terminal, a line now and then elsewhere."""
  if sys.stderr.isatty():
    with tqdm.tqdm(total=total, unit='step', leave=False) as bar:
      def show(done, loss):
        bar.set_postfix(loss='%.4f' % loss, refresh=False)
        bar.update(done - bar.n)
      yield show
    return
  lines = []

  def log(done, loss):
    if done * LINES >= total * (len(lines) + 1):
      lines.append(done)
      print('step %d of %d, loss %.5f' % (done, total, loss))
      sys.stdout.flush()
  yield log


def check_output(path, overwrite):
  """Refuses a directory that may not or cannot be written.

  Args:
    path: the directory that the model will be.
    overwrite: whether a model that is there may go.

  Raises:
    UserError: the line names the flag that helps.
  """
  if os.path.isdir(path):
    held = set(os.listdir(path))
    foreign = held - {NETWORK, METRICS, PICTURE, CARD}
    if foreign:
      raise UserError('--output_dir=%s holds other files (%s); name a '
                      'directory of its own' % (path, min(foreign)))
    if held and not overwrite:
      raise UserError('--output_dir=%s holds a model already; add --overwrite '
                      'to replace it' % path)
  elif os.path.lexists(path):
    raise UserError('--output_dir=%s is no directory' % path)
  files.writable_directory(os.path.dirname(os.path.realpath(path)),
                           'output_dir')


def _write(path, text):
  with open(path, 'w') as f:
    f.write(text.rstrip('\n') + '\n')


def draw(chosen, learned):
  """Draws the learned weight beside v*.

  Args:
    chosen: a `Curriculum`.
    learned: features [N, 4] -> v [N].

  Returns:
    A matplotlib Figure: a column per epoch percentage; v* and v over loss and
    difference, and both along the points that one moving average gives.
  """
  from matplotlib import figure  # pylint: disable=g-import-not-at-top
  epochs = sorted({e for phase in chosen.phases for e in phase} |
                  ({50} if len(chosen.phases) == 1 else set()))
  fig = figure.Figure(figsize=(1.2 + 1.9 * len(epochs), 6.4),
                      constrained_layout=True)
  axes = fig.subplots(3, len(epochs), sharey='row', sharex='row')
  d, loss = np.meshgrid(np.linspace(-3, 3, 151), np.linspace(0, 6, 121))
  for column, e in zip(axes.T, epochs):
    for ax, function in zip(column, (chosen.v_star, _on_points(learned))):
      image = ax.imshow(
          function(loss, d, np.full_like(d, e)), origin='lower',
          extent=(-3, 3, 0, 6), aspect='auto', vmin=0, vmax=1, cmap='viridis')
      ax.fill_between([0, 3], [0, 3], facecolor='white', alpha=0.55,
                      edgecolor='0.4', hatch='///', linewidth=0)
    _draw_paths(column[2], chosen.v_star, _on_points(learned), e)
    column[0].set_title('e = %d%%' % e)
    column[0].tick_params(labelbottom=False)
    column[2].set_xlabel('difference d')
  for ax, label in zip(axes[:, 0], (
      '$\\bf{v*}$\nloss', '$\\bf{learned\\ v}$\nloss',
      '$\\bf{both}$\nweight')):
    ax.set_ylabel(label)
  fig.colorbar(image, ax=list(axes[:2].ravel()), label='weight', aspect=30)
  handles, labels = axes[2, 0].get_legend_handles_labels()
  fig.legend(handles, labels, loc='upper center', ncol=len(labels),
             bbox_to_anchor=(0.5, 0), frameon=False)
  return fig


def _draw_paths(ax, v_star, learned, e):
  """Weights against d where the loss is the moving average plus d."""
  for k, average in enumerate(AVERAGES):  # Ever thinner: all can be seen.
    d = np.linspace(-min(1, average), 2, 301)
    at = (average + d, d, np.full_like(d, e))
    ax.plot(d, learned(*at), color='C%d' % k, linewidth=(7, 4, 2)[k],
            label='learned v, moving average %g' % average)
    ax.plot(d, v_star(*at), color='black', linewidth=1, linestyle='--',
            label='v*' if average == AVERAGES[-1] else None)
  ax.set_ylim(-0.05, 1.05)


def _on_points(learned):
  """The learned function with the arguments of v*."""
  def function(loss, d, e):
    features = np.stack([loss, d, np.zeros_like(d), e], axis=-1)
    return learned(features.reshape(-1, 4)).reshape(d.shape)
  return function


_CARD = """\
# {curriculum}

A frozen MentorNet: it gives every example of a batch a weight v from 0 to 1. It
has learned this predefined curriculum:

> v\\* = {about}

Here *loss* is the loss of the example, *d* is the loss minus its moving average
and *e* is how far training is, in percent.

![v* and the learned weight]({picture})

Top: v\\* by d and loss. Middle: what the network learned. The hatched corner
cannot occur, because the moving average is never negative. Bottom: both, where
the loss is a fixed moving average plus d.

## Distance from v\\*

Absolute error on {rows:,} points that it has not learned from:

| e | points | mean | mean of the worst 1% |
|---|---|---|---|
{table}

## How it was learned

{how}

{departures}

Make it again, with `--overwrite` to replace it:

    {remake}

## Use

    python code/cifar_train_mentormix.py --trained_mentornet_dir={path} ...

`{network}` loads on TensorFlow 1.15 and 2.x; `{metrics}` has the numbers above.
"""

_HOW = (
    '{rows:,} points drawn from the published grid (loss 0 to 30, d -5 to 5, e '
    '0 to 99), {held_out_share:.0%} of them held out; {loss}; Adam with a rate '
    'of {settings[learning_rate]:g}, times '
    '{settings[learning_rate_decay_factor]:g} every '
    '{settings[steps_per_decay]:,} steps; gradient norm clipped at '
    '{settings[clip_norm]:g}; batches of {settings[batch_size]}; '
    '{settings[max_number_of_steps]:,} steps; seed {settings[seed]}; '
    'TensorFlow {tensorflow}.')


def card(metrics, published, path):
  """The README.md of a model.

  Args:
    metrics: the content of metrics.json.
    published: the published settings, name -> value.
    path: where the model will be.
  """
  held_out, settings = metrics['held_out'], metrics['settings']
  changed = sorted(name for name in published
                   if name != 'seed' and settings[name] != published[name])
  departures = 'All as published; the initial weights are small random numbers.'
  if changed:
    departures = 'Not as published: %s.' % '; '.join(
        '%s is %g instead of %g' % (name, settings[name], published[name])
        for name in changed)
  words = ['python code/train_mentornet.py',
           '--curriculum=%s' % metrics['curriculum']]
  words += ['--%s=%s' % (name, settings[name]) for name in sorted(published)
            if settings[name] != published[name]]
  if path != os.path.join(MODELS_DIR, metrics['curriculum']):
    words.append('--output_dir=%s' % path)
  return _CARD.format(
      curriculum=metrics['curriculum'],
      about=curriculum.CURRICULA[metrics['curriculum']].about,
      rows=held_out['rows'], table='\n'.join(_table(held_out)),
      how=textwrap.fill(_HOW.format(**metrics), 80),
      departures=textwrap.fill(departures, 80),
      remake=' \\\n      '.join(words), path=path,
      picture=PICTURE, network=NETWORK, metrics=METRICS)


def _table(held_out):
  for part in [held_out] + held_out['phases']:
    if part is held_out:
      name = 'all'
    elif len(held_out['phases']) == 1:
      continue
    else:
      name = '%d to %d' % tuple(part['epoch_percent'])
    yield '| %s | %s | %.5f | %.5f |' % (
        name, format(part['rows'], ','), part['mean_absolute_error'],
        part['worst_1_percent'])


if __name__ == '__main__':
  cli()
