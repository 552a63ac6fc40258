r"""Puts training runs into tables and pictures.

    python code/report.py --runs=runs/cifar10,runs/cifar100 --output_dir=report

It reads every run in and below --runs and writes report.html (one page that
includes the pictures), report.md, report.csv (a row for each group of runs that
differ only in their seed), runs.csv (a row for each run) and the pictures
(PNG). Runs at several noise levels, kinds or initialisations are compared as a
study. It replaces what an earlier call wrote and nothing else. Exit codes:
0 written, 1 failed, 2 bad input.
"""
import os

from absl import flags

from mentormix import command


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_list('runs', [],
                    'Directories that are runs or have runs below them.')
  flags.DEFINE_string('output_dir', '', 'The directory to write to.')
  for name in ('runs', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'last_k', 5, 'How many of the last checkpoints the median covers.',
      lower_bound=1)
  flags.DEFINE_string('title', 'Training on noisy labels',
                      'Title of the page.')


def main():
  """Flags -> report."""
  args = flags.FLAGS
  # Late: TensorFlow takes seconds to load.
  from mentormix.reports import rendering
  count = rendering.write(args.runs, args.output_dir, args.title, args.last_k)
  path = os.path.join(args.output_dir, 'report.html')
  print(f'{path}: {count}')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
