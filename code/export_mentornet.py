r"""Writes a MentorNet in another form: as a checkpoint, or frozen.

    python code/export_mentornet.py --output_dir=exported \
      --trained_mentornet_dir=mentornet_models/mentornet_pd

writes model.ckpt.* and `checkpoint` with the published variable names, which
the published code restores. With --form=frozen it writes mentornet.pb, the form
that this project ships. It loads what it wrote and compares it with the
original. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import os

from absl import flags
import numpy as np

from mentormix import command
from mentormix import files
from mentormix.messages import RunError

PREFIX = 'model.ckpt'
FILES = {'mentornet.pb', 'checkpoint', f'{PREFIX}.index',
         f'{PREFIX}.data-00000-of-00001'}
_TOLERANCE = 1e-6  # Largest difference of two outputs of the same network.


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
      f'checkpoint: {PREFIX}.*, which the published code reads; frozen: '
      'mentornet.pb.')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace the files of an earlier export.')


def main():
  """Flags -> weights -> files -> weights again."""
  args = flags.FLAGS
  path = os.path.normpath(args.output_dir)
  files.check_output(path, FILES, args.overwrite)
  # TensorFlow starts once the flags are valid.
  from mentormix.mentornet import frozen_graph
  from mentormix.mentornet import loading
  from mentormix.mentornet import weights as weights_lib
  weights = loading.weights_of(args.trained_mentornet_dir)
  points = frozen_graph.probe_points()
  original = loading.apply_network(
      loading.load(args.trained_mentornet_dir), points)
  with files.new_directory(path) as directory:
    if args.form == 'frozen':
      frozen_graph.freeze(weights, directory)
    else:
      weights_lib.write_checkpoint(weights, os.path.join(directory, PREFIX))
    written = loading.apply_network(loading.load(directory), points)
    difference = np.abs(written - original).max()
    if not difference <= _TOLERANCE:
      raise RunError(
          f'--trained_mentornet_dir={args.trained_mentornet_dir} does not '
          'compute what a MentorNet with its weights computes: they differ by '
          f'up to {difference:.1e}; nothing was written')
  print(f'{path}: {args.form}; largest difference from '
        f'{args.trained_mentornet_dir} on {len(points)} points: '
        f'{difference:.1e}')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
