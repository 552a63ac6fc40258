r"""Learns a MentorNet, from a formula or from data, and freezes it.

    python code/train_mentornet.py --curriculum=mentornet_pd
    python code/train_mentornet.py --curriculum=my_curriculum.py
    python code/train_mentornet.py --curriculum=losses.csv

writes mentornet_models/mentornet_pd (or my_curriculum, losses) with the frozen
network (mentornet.pb), its errors and settings (metrics.json), pictures of what
it learned (curriculum.png, curriculum.gif) and a card (README.md). It takes
about a minute on one core.
"""
import contextlib
import functools
import hashlib
import json
import os
import shlex
import signal
import sys
import textwrap
import time
import typing

from absl import flags
import tqdm

from mentormix import command
from mentormix import curriculum
from mentormix import files
from mentormix import loss_traces
from mentormix.command import UserError

NETWORK, METRICS = 'mentornet.pb', 'metrics.json'
PICTURE, ANIMATION, CARD = 'curriculum.png', 'curriculum.gif', 'README.md'
FILES = {NETWORK, METRICS, PICTURE, ANIMATION, CARD}
MODELS_DIR = 'mentornet_models'
NUM_POINTS, HELD_OUT = 100000, 0.2
LINES = 5  # Log lines per run where there is no terminal.
SETTINGS = ('max_number_of_steps', 'batch_size', 'learning_rate', 'restarts')
_DATA = '.csv'


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


def define_flags():
  """Defines the flags; called once, by the script."""
  known = '; '.join(f'{name}: {c.about.rstrip(".")}'
                    for name, c in curriculum.CURRICULA.items())
  flags.DEFINE_string(
      'curriculum', 'mentornet_pd',
      f'What to learn. One of {known}; or a Python file that defines '
      'v_star(loss, difference, label, epoch) (it is run); or a CSV file '
      'written by cifar_train_mentormix.py --loss_csv_file, for a data-driven '
      'MentorNet: which labels are right?')
  flags.DEFINE_string(
      'output_dir', None, 'The directory to write; by default '
      f'{MODELS_DIR}/<curriculum>.')
  flags.DEFINE_boolean(
      'published', False, 'Learn with the settings of the published code '
      'instead of those that follow the curricula best.')
  flags.DEFINE_list(
      'loss_p_percentiles', ['0.5', '0.6', '0.7', '0.8'], 'For a CSV file: the '
      'percentiles of the loss, 0 to 1, to compare the losses with. Name those '
      'that the MentorNet will be used with (--loss_p_percentile).')
  flags.DEFINE_integer(
      'seed', 0, 'Seed of the points, the initial weights and the batches.',
      lower_bound=0, upper_bound=2 ** 31 - 1)
  flags.DEFINE_integer('max_number_of_steps', None, 'Steps to learn for.',
                       lower_bound=1, upper_bound=10 ** 9)
  flags.DEFINE_integer('restarts', None, 'Number of starts from other initial '
                       'weights; the result closest to its points is taken.',
                       lower_bound=1, upper_bound=1000)
  flags.DEFINE_integer('batch_size', None, 'Points per step.', lower_bound=1,
                       upper_bound=10 ** 6)
  flags.DEFINE_float('learning_rate', None, 'Highest learning rate of Adam.')
  flags.register_validator(
      'learning_rate', lambda rate: rate is None or 0 < rate < float('inf'),
      'must be a number above 0')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace a model that an earlier run made.')


def main():
  """Flags -> points -> network -> files."""
  args = flags.FLAGS
  stem = os.path.splitext(os.path.basename(args.curriculum))[0]
  path = os.path.normpath(args.output_dir or os.path.join(MODELS_DIR, stem))
  lesson = get_lesson(args.curriculum, _percentiles(args), args.seed)
  files.check_output(path, FILES, args.overwrite)
  for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _stop)
  # Tiny operations: several threads would only wait for one another.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet
  from mentormix import mentornet_figures  # noqa: F401  Fail before learning.
  from mentormix import mentornet_training
  from mentormix import runtime
  standard = (mentornet_training.PUBLISHED if args.published
              else mentornet_training.BEST)
  settings = standard._replace(seed=args.seed, **{
      name: args[name].value for name in SETTINGS
      if args[name].value is not None})

  total = settings.max_number_of_steps * settings.restarts
  print(f'Learning {lesson.name} in {total} steps.', flush=True)
  start = time.time()
  with _progress(total) as on_step:
    weights = mentornet_training.learn(*lesson.learn_from, settings, on_step)
  seconds = time.time() - start

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # Writing takes a few seconds.
  with files.new_directory(path) as directory:
    mentornet.freeze(weights, directory)
    network = mentornet.load(directory)  # From here on, what users will load.
    errors = mentornet_training.held_out_errors(
        network, *lesson.held_out, lesson.phases)
    metrics = {
        'curriculum': lesson.name,
        'source': lesson.facts,
        'held_out': errors,
        'rows': len(lesson.learn_from[1]) + len(lesson.held_out[1]),
        'held_out_share': HELD_OUT,
        'published': args.published,
        'settings': dict(sorted(settings._asdict().items())),
        'tensorflow': runtime.VERSION,
        'seconds': round(seconds, 1),
    }
    if lesson.traces:
      metrics['judged'] = _judge(network, lesson.held_out)
    _write(os.path.join(directory, METRICS), json.dumps(metrics, indent=2))
    _write(os.path.join(directory, CARD),
           card(lesson, metrics, standard._asdict(), path))
    _draw(directory, lesson, network)
  print(f'{path}: {lesson.name}; mean absolute error '
        f'{errors["mean_absolute_error"]:.6f}, worst 1% '
        f'{errors["worst_1_percent"]:.5f}, on {errors["rows"]} held-out '
        f'points, {seconds:.1f} s')


def _draw(directory, lesson, network):
  """Writes the two pictures of a network."""
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet_figures
  from mentormix import mentornet_training
  learned = functools.partial(mentornet_training.apply_network, network)
  mentornet_figures.draw(
      os.path.join(directory, PICTURE), learned,
      curriculum.stages(lesson.phases), lesson.v_star, lesson.traces)
  mentornet_figures.animate(
      os.path.join(directory, ANIMATION), learned, lesson.v_star, lesson.traces)


def _percentiles(args):
  """--loss_p_percentiles as floats."""
  try:
    values = [float(text) for text in args.loss_p_percentiles]
  except ValueError:
    values = []
  if not values or not all(0 <= value <= 1 for value in values):
    given = ','.join(args.loss_p_percentiles)
    raise UserError(f'--loss_p_percentiles={given} is not a list of numbers '
                    'from 0 to 1')
  if (args['loss_p_percentiles'].present
      and not args.curriculum.endswith(_DATA)):
    raise UserError('--loss_p_percentiles is for a CSV file; '
                    f'--curriculum={args.curriculum} is not one')
  return values


def get_lesson(source, loss_p_percentiles, seed):
  """The `Lesson` of a curriculum.

  Args:
    source: a predefined curriculum, a Python file or a CSV file.
    loss_p_percentiles: floats from 0 to 1, for a CSV file.
    seed: chooses the points.

  Raises:
    UserError: there is no such curriculum, or nothing can be learned from it.
  """
  facts = {}
  if os.path.splitext(source)[1]:
    facts['file'] = source
  try:
    if not source.endswith(_DATA):
      chosen = curriculum.get(source)
      learn_from, held_out = curriculum.training_set(
          chosen, NUM_POINTS, HELD_OUT, seed)
      lesson = Lesson(chosen.name, chosen.about, chosen.phases, chosen.v_star,
                      None, learn_from, held_out, facts)
    else:
      traces = loss_traces.read(source)
      learn_from, held_out = loss_traces.training_set(
          traces, loss_p_percentiles, HELD_OUT, seed)
      facts.update(rows=len(traces.loss), samples=len(set(traces.sample_id)),
                   right=round(float(traces.v_star().mean()), 4),
                   loss_p_percentiles=loss_p_percentiles)
      lesson = Lesson(
          os.path.splitext(os.path.basename(source))[0], _ABOUT_DATA,
          curriculum.ALWAYS, None, traces, learn_from, held_out, facts)
  except UserError as error:
    raise UserError(f'--curriculum: {error}')
  if facts:
    with open(source, 'rb') as f:
      facts['sha256'] = hashlib.sha256(f.read()).hexdigest()
  return lesson


def _judge(network, held_out):
  """How well a data-driven MentorNet tells right labels from wrong ones."""
  # pylint: disable=g-import-not-at-top
  from mentormix import label_scores
  from mentormix import mentornet
  from mentormix import mentornet_training
  features, is_right = held_out[0], held_out[1] > 0
  v = mentornet_training.apply_network(network, features)
  share = float(is_right.mean())
  return {
      'accuracy': float(((v >= mentornet.SELECTED) == is_right).mean()),
      'constant': max(share, 1 - share),
      'most': 'right' if share >= 0.5 else 'wrong',
      'self_paced': float(((features[:, 1] <= 0) == is_right).mean()),
      'auc': label_scores.auc(v, is_right)}


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


def _stop(number, unused_frame):
  """Ends the process at once, whatever it is doing.

  An exception is not enough: TensorFlow swallows it when it calls back into
  Python, for example in destructors, and learning would continue.
  """
  os.write(2, b'\nStopped by signal %d; nothing was written.\n' % number)
  os._exit(128 + number)  # pylint: disable=protected-access


@contextlib.contextmanager
def _progress(total):
  """Yields on_step: a bar on a terminal, a few lines elsewhere."""
  if sys.stderr.isatty():
    with tqdm.tqdm(total=total, unit='step', leave=False) as bar:
      def show(done, loss):
        bar.set_postfix(loss=f'{loss:.4f}', refresh=False)
        bar.update(done - bar.n)
      yield show
    return
  lines = 0

  def log(done, loss):
    nonlocal lines
    if done * LINES >= total * (lines + 1):
      lines += 1
      print(f'step {done} of {total}, loss {loss:.5f}', flush=True)
  yield log


def _write(path, text):
  with open(path, 'w', encoding='utf-8', errors='backslashreplace') as f:
    f.write(text.rstrip('\n') + '\n')


_ABOUT_DATA = '1 where the label is right, else 0; learned from losses.'

_CARD = """\
# {lesson.name}

A frozen MentorNet: it gives every example of a batch a weight v from 0 to 1. It
has learned this curriculum:

> v\\* = {lesson.about}

Here *loss* is the loss of the example, *d* is the loss minus its moving average
and *e* is how far training is, in percent.

![v* and the learned weight]({picture})

{legend}

![The same over the whole training]({animation})

## Distance from v\\*

Absolute error on {rows:,} points that it has not learned from:

| e | points | mean | mean of the worst 1% |
|---|---|---|---|
{table}
{judged}
## How it was learned

{how}

{departures}

Make it again, with `--overwrite` to replace it:

    {remake}

## Use

    python code/cifar_train_mentormix.py --trained_mentornet_dir={path} ...

`{network}` loads on TensorFlow 1.15 and 2.x; `{metrics}` has the numbers above.
"""

_LEGEND = (
    'From top to bottom: v\\* by d and loss; what the network learned; and '
    'both where the loss is a fixed moving average plus d. The hatched corner '
    'cannot occur, because the moving average is never negative.')
_LEGEND_DATA = (
    'Top: the learned weight by d and loss. The hatched corner cannot occur, '
    'because the moving average is never negative. Bottom: the weight for '
    'losses as they were at that time of the training, and which share of '
    'their labels was right (points; the more losses, the larger).')
_JUDGED = (
    'These errors cannot be 0, since a right and a wrong label may have the '
    'same loss. To take the labels of weight 0.5 and more for right, the '
    'others for wrong, holds for {accuracy:.1%} of the points; to go by '
    'd <= 0, as the self-paced curriculum does, for {self_paced:.1%}; to take '
    'all for {most}, for {constant:.1%}. The area under the ROC curve is '
    '{auc:.3f}.')

_POINTS = (
    '{rows:,} points drawn from the published grid (loss 0 to 30, d -5 to 5, e '
    '0 to 99), {held_out_share:.0%} of them held out')
_POINTS_DATA = (
    '{source[rows]:,} losses of {source[samples]:,} examples, '
    '{source[right]:.1%} of their labels right; each loss compared with the '
    'percentiles {source[loss_p_percentiles]} of its time; '
    '{held_out_share:.0%} of the examples held out')
_HOW = (
    '; {loss}; Adam with a rate of {settings[learning_rate]:g}, {schedule}; '
    'gradient norm clipped at {settings[clip_norm]:g}; batches of '
    '{settings[batch_size]}; {settings[max_number_of_steps]:,} steps; '
    '{settings[restarts]} starts, of which the closest was taken; seed '
    '{settings[seed]}; TensorFlow {tensorflow}.')


def card(lesson, metrics, standard, path):
  """The README.md of a model.

  Args:
    lesson: the `Lesson`.
    metrics: the content of metrics.json.
    standard: the settings without further flags, name -> value.
    path: where the model will be.

  Returns:
    A Markdown text.
  """
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet_training
  in_words = mentornet_training.IN_WORDS
  held_out, settings = metrics['held_out'], metrics['settings']
  source = metrics['source'].get('file', lesson.name)
  words = [f'--curriculum={source}']
  words += ['--published'] * metrics['published']
  words += [f'--{name}={settings[name]}' for name in sorted(standard)
            if settings[name] != standard[name]]
  if lesson.traces:
    percentiles = metrics['source']['loss_p_percentiles']
    words.append(f'--loss_p_percentiles={",".join(map(str, percentiles))}')
  if path != os.path.join(MODELS_DIR, lesson.name):
    words.append(f'--output_dir={path}')
  words = ['python code/train_mentornet.py'] + list(map(shlex.quote, words))
  judged = ''
  if 'judged' in metrics:
    judged = f'\n{textwrap.fill(_JUDGED.format(**metrics["judged"]), 80)}\n'
  how = (_POINTS_DATA if lesson.traces else _POINTS) + _HOW
  return _CARD.format(
      lesson=lesson, rows=held_out['rows'], table='\n'.join(_table(held_out)),
      legend=textwrap.fill(_LEGEND_DATA if lesson.traces else _LEGEND, 80),
      judged=judged, how=textwrap.fill(how.format(
          schedule=in_words[settings['schedule']],
          loss=in_words[settings['loss']], **metrics), 80),
      departures=textwrap.fill(_departures(
          settings, mentornet_training.PUBLISHED._asdict()), 80),
      remake=' \\\n      '.join(words), path=shlex.quote(path), picture=PICTURE,
      animation=ANIMATION, network=NETWORK, metrics=METRICS)


def _departures(settings, published):
  """Which settings are not the published ones, in words."""
  changed = [f'{name} is {settings[name]} instead of {published[name]}'
             for name in sorted(published)
             if name != 'seed' and settings[name] != published[name]]
  if not changed:
    return 'All as published; the initial weights are small random numbers.'
  return f'Not as published: {"; ".join(changed)}.'


def _table(held_out):
  """The rows of the table of errors: all points, then each phase of several."""
  phases = held_out['phases'] if len(held_out['phases']) > 1 else []
  for part in [held_out] + phases:
    name = ' to '.join(map(str, part.get('epoch_percent', ['all'])))
    yield (f'| {name} | {part["rows"]:,} | {part["mean_absolute_error"]:.6f} | '
           f'{part["worst_1_percent"]:.5f} |')


if __name__ == '__main__':
  cli()
