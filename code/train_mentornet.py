r"""Learns a MentorNet, from a formula or from data, and freezes it.

    python code/train_mentornet.py --curriculum=mentornet_pd
    python code/train_mentornet.py --curriculum=my_curriculum.py
    python code/train_mentornet.py --curriculum=losses.csv

writes mentornet_models/mentornet_pd (or my_curriculum, losses) with the frozen
network (mentornet.pb), its errors and settings (metrics.json), pictures of what
it learned (curriculum.png, curriculum.gif) and a card (README.md). It takes
about a minute on one core.
"""
import functools
import json
import os
import signal
import time

from absl import flags

from mentormix import command
from mentormix import files
from mentormix import progress as progress_lib
from mentormix.mentornet import curriculum
from mentormix.mentornet import lesson as lesson_lib
from mentormix.mentornet import pictures
from mentormix.messages import UserError

_SETTINGS = ('max_number_of_steps', 'batch_size', 'learning_rate', 'restarts')


def define_flags():
  """Defines the flags; called once, by the script."""
  known = '; '.join(f'{name}: {c.about.rstrip(".")}'
                    for name, c in curriculum.CURRICULA.items())
  flags.DEFINE_string(
      'curriculum', 'mentornet_pd',
      f'What to learn. One of {known}; or a Python file that defines '
      'v_star(loss, difference, label, epoch) (it is run); or a CSV file '
      'written by cifar_train_mentormix.py --loss_csv_file, for a data-driven '
      'MentorNet, which learns which labels are right.')
  flags.DEFINE_string(
      'output_dir', None, 'The directory to write; by default '
      f'{lesson_lib.MODELS_DIR}/<curriculum>.')
  flags.DEFINE_boolean(
      'published', False, 'Learn with the settings of the published code '
      'instead of those with the smallest errors.')
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
                       'weights; the one with the smallest error is kept.',
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
  lesson = lesson_lib.get(args.curriculum, _percentiles(args), args.seed)
  path = os.path.normpath(args.output_dir or os.path.join(
      lesson_lib.MODELS_DIR, lesson.name))
  files.check_output(path, lesson_lib.FILES, args.overwrite)
  if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    # TensorFlow may swallow a KeyboardInterrupt: Ctrl-C ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  # The operations are tiny: threads would only wait for one another.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  # TensorFlow starts once the flags are valid.
  from mentormix import detection
  from mentormix import mentormix_loss
  from mentormix import runtime
  from mentormix.mentornet import card
  from mentormix.mentornet import frozen_graph
  from mentormix.mentornet import learning
  from mentormix.mentornet import loading
  standard = learning.PUBLISHED if args.published else learning.BEST
  settings = standard._replace(seed=args.seed, **{
      name: args[name].value for name in _SETTINGS
      if args[name].value is not None})

  total = settings.max_number_of_steps * settings.restarts
  print(f'Learning {lesson.name} in {total} steps.', flush=True)
  start = time.time()
  progress = progress_lib.Progress(0, total)
  def on_step(done, loss):
    if progress.is_due():
      progress.show(done, loss=f'{loss:.5f}')
  weights = learning.learn(*lesson.learn_from, settings, on_step)
  progress.close(total)
  seconds = time.time() - start

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # Writing takes a few seconds.
  with files.new_directory(path) as directory:
    frozen_graph.freeze(weights, directory)
    learned = functools.partial(  # This is what users will load.
        loading.apply_network, loading.load(directory))
    v = learned(lesson.held_out[0])
    errors = learning.held_out_errors(v, *lesson.held_out, lesson.phases)
    metrics = {
        'curriculum': lesson.name,
        'source': lesson.facts,
        'held_out': errors,
        'rows': len(lesson.learn_from[1]) + len(lesson.held_out[1]),
        'held_out_share': lesson_lib.HELD_OUT,
        'published': args.published,
        'settings': dict(sorted(settings._asdict().items())),
        'tensorflow': runtime.VERSION,
        'seconds': round(seconds, 1),
    }
    if lesson.traces:
      metrics['judged'] = dict(
          _judge(v >= mentormix_loss.TRUSTED, *lesson.held_out),
          auc=detection.auc(v, lesson.held_out[1] > 0))
    _write(directory, lesson, metrics,
           card.card(lesson, metrics, standard, path), learned)
  print(f'{path}: {lesson.name}; mean absolute error '
        f'{errors["mean_absolute_error"]:.6f}, worst 1% '
        f'{errors["worst_1_percent"]:.5f}, on {errors["rows"]} held-out '
        f'points, {seconds:.1f} s')


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
      and not args.curriculum.endswith(lesson_lib.DATA)):
    raise UserError('--loss_p_percentiles is for a CSV file; '
                    f'--curriculum={args.curriculum} is not one')
  return values


def _judge(is_trusted, features, v_star):
  """How well a data-driven MentorNet tells right labels from wrong ones."""
  is_right = v_star > 0
  share = float(is_right.mean())
  return {
      'accuracy': float((is_trusted == is_right).mean()),
      'constant': max(share, 1 - share),
      'most': 'right' if share >= 0.5 else 'wrong',
      'self_paced': float(((features[:, 1] <= 0) == is_right).mean())}


def _write(directory, lesson, metrics, card, learned):
  """Writes what describes a network: metrics, card and pictures."""
  for name, text in ((lesson_lib.METRICS, json.dumps(metrics, indent=2)),
                     (lesson_lib.CARD, card)):
    with open(os.path.join(directory, name), 'w', encoding='utf-8',
              errors='backslashreplace') as f:
      f.write(text.rstrip('\n') + '\n')
  pictures.draw(os.path.join(directory, lesson_lib.PICTURE), learned,
                curriculum.stages(lesson.phases), lesson.v_star, lesson.traces)
  pictures.animate(os.path.join(directory, lesson_lib.ANIMATION), learned,
                   lesson.v_star, lesson.traces)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
