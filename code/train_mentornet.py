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
import signal
import sys
import time

import tqdm
from absl import flags

from mentormix import command
from mentormix import files
from mentormix.mentornet import card
from mentormix.mentornet import curriculum
from mentormix.mentornet import loss_traces
from mentormix.messages import UserError

NUM_POINTS, HELD_OUT = 100000, 0.2
LINES = 5  # Log lines per run where there is no terminal.
SETTINGS = ('max_number_of_steps', 'batch_size', 'learning_rate', 'restarts')
_DATA = '.csv'


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
      f'{card.MODELS_DIR}/<curriculum>.')
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
  path = os.path.normpath(args.output_dir or os.path.join(card.MODELS_DIR, stem))
  lesson = get_lesson(args.curriculum, _percentiles(args), args.seed)
  files.check_output(path, card.FILES, args.overwrite)
  for number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _stop)
  # Tiny operations: several threads would only wait for one another.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  # pylint: disable=g-import-not-at-top
  from mentormix.mentornet import frozen_graph
  from mentormix.mentornet import loading
  from mentormix.mentornet import learning
  from mentormix import runtime
  standard = (learning.PUBLISHED if args.published
              else learning.BEST)
  settings = standard._replace(seed=args.seed, **{
      name: args[name].value for name in SETTINGS
      if args[name].value is not None})

  total = settings.max_number_of_steps * settings.restarts
  print(f'Learning {lesson.name} in {total} steps.', flush=True)
  start = time.time()
  with _progress(total) as on_step:
    weights = learning.learn(*lesson.learn_from, settings, on_step)
  seconds = time.time() - start

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # Writing takes a few seconds.
  with files.new_directory(path) as directory:
    frozen_graph.freeze(weights, directory)
    network = loading.load(directory)  # From here on, what users will load.
    errors = learning.held_out_errors(
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
    _write(os.path.join(directory, card.METRICS), json.dumps(metrics, indent=2))
    _write(os.path.join(directory, card.CARD),
           card.card(lesson, metrics, standard._asdict(), path))
    _draw(directory, lesson, network)
  print(f'{path}: {lesson.name}; mean absolute error '
        f'{errors["mean_absolute_error"]:.6f}, worst 1% '
        f'{errors["worst_1_percent"]:.5f}, on {errors["rows"]} held-out '
        f'points, {seconds:.1f} s')


def _draw(directory, lesson, network):
  """Writes the two pictures of a network."""
  # pylint: disable=g-import-not-at-top
  from mentormix.mentornet import pictures
  from mentormix.mentornet import loading
  learned = functools.partial(loading.apply_network, network)
  pictures.draw(
      os.path.join(directory, card.PICTURE), learned,
      curriculum.stages(lesson.phases), lesson.v_star, lesson.traces)
  pictures.animate(
      os.path.join(directory, card.ANIMATION), learned, lesson.v_star, lesson.traces)


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
      lesson = card.Lesson(chosen.name, chosen.about, chosen.phases, chosen.v_star,
                      None, learn_from, held_out, facts)
    else:
      traces = loss_traces.read(source)
      learn_from, held_out = loss_traces.training_set(
          traces, loss_p_percentiles, HELD_OUT, seed)
      facts.update(rows=len(traces.loss), samples=len(set(traces.sample_id)),
                   right=round(float(traces.v_star().mean()), 4),
                   loss_p_percentiles=loss_p_percentiles)
      lesson = card.Lesson(
          os.path.splitext(os.path.basename(source))[0], card.ABOUT_DATA,
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
  from mentormix import label_ranking
  from mentormix.mentornet import mentor
  from mentormix.mentornet import loading
  features, is_right = held_out[0], held_out[1] > 0
  v = loading.apply_network(network, features)
  share = float(is_right.mean())
  return {
      'accuracy': float(((v >= mentor.SELECTED) == is_right).mean()),
      'constant': max(share, 1 - share),
      'most': 'right' if share >= 0.5 else 'wrong',
      'self_paced': float(((features[:, 1] <= 0) == is_right).mean()),
      'auc': label_ranking.auc(v, is_right)}


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


if __name__ == '__main__':
  cli()
