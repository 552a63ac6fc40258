r"""Writes a MentorNet in another form: as a checkpoint, or frozen.

    python code/export_mentornet.py --output_dir=exported \
      --trained_mentornet_dir=mentornet_models/mentornet_pd

writes model.ckpt.* and `checkpoint` with the published variable names, which
the published code restores; with --form=frozen, mentornet.pb, which this
project ships. What was written is loaded again and compared with the original.
Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import os

from absl import flags
import numpy as np

from mentormix import command
from mentormix import files
from mentormix.command import RunError

PREFIX = 'model.ckpt'
FILES = {'mentornet.pb', 'checkpoint', PREFIX + '.index',
         PREFIX + '.data-00000-of-00001'}
TOLERANCE = 1e-6  # How far two weights of the same network may be apart.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'trained_mentornet_dir', '', 'The MentorNet: a directory with '
      'mentornet.pb, a checkpoint prefix, or a directory with a checkpoint.')
  flags.DEFINE_string('output_dir', '', 'The directory to write.')
  for name in ('trained_mentornet_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_enum(
      'form', 'checkpoint', ['checkpoint', 'frozen'],
      'checkpoint: %s.*, which the published code reads; frozen: mentornet.pb.'
      % PREFIX)
  flags.DEFINE_boolean('overwrite', False,
                       'Replace what an earlier export has written.')


def main():
  """Flags -> weights -> files -> weights again."""
  args = flags.FLAGS
  path = os.path.normpath(args.output_dir)
  files.check_output(path, FILES, args.overwrite)
  # pylint: disable=g-import-not-at-top
  from mentormix import mentornet
  from mentormix import mentornet_training
  from mentormix import mentornet_weights
  weights = mentornet.weights_of(args.trained_mentornet_dir)
  points = mentornet.probe_points()
  original = mentornet_training.apply_network(
      mentornet.load(args.trained_mentornet_dir), points)
  with files.new_directory(path) as directory:
    if args.form == 'frozen':
      mentornet.freeze(weights, directory)
    else:
      mentornet_weights.write_checkpoint(
          weights, os.path.join(directory, PREFIX))
    written = mentornet_training.apply_network(
        mentornet.load(directory), points)
    difference = np.abs(written - original).max()
    if not difference <= TOLERANCE:
      raise RunError(
          '--trained_mentornet_dir=%s computes something else than a MentorNet '
          'of its weights: they differ by up to %.1e; nothing was written'
          % (args.trained_mentornet_dir, difference))
  print('%s: %s; largest difference from %s on %d points: %.1e' % (
      path, args.form, args.trained_mentornet_dir, len(points), difference))


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
