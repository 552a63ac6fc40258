r"""Writes the training step as a StableHLO module, for any accelerator runtime.

    python code/export_step.py --preset=published --data_dir=data/cifar10/0.4 \
      --output_dir=exported

takes the flags of cifar_train_mentormix.py and writes the files that
code/run_exported.py needs to train with JAX and without TensorFlow:

    step.stablehlo, augment.stablehlo   the step; the augmentation of a batch
    step.json     their arguments and results, and the settings
    state.npz     the initial state: weights, momentum, averages, statistics
    data.npz      the decoded images and labels, in the order of the records
    noise.json    if --data_dir has one

Flags about TensorFlow's session, input threads or saving have no effect here.
Needs TensorFlow 2.x and no accelerator. Exit codes: 0 finished, 1 failed, 2 bad
input.
"""
import os
import shlex

from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix.messages import log, UserError


def define_flags():
  """Defines the flags of this command."""
  command.define_train_flags()
  flags.DEFINE_string('output_dir', '', 'The directory to write.')
  flags.register_validator('output_dir', bool, 'must be given')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace the files of an earlier export.')


def main():
  """Flags -> graph -> modules, state and data."""
  args = flags.FLAGS
  path = os.path.normpath(args.output_dir)
  config = command.train_config()._replace(train_log_dir='unused')
  config_lib.validate(config)
  config = config._replace(train_log_dir=path)
  if config.sync_replicas:
    raise UserError('--sync_replicas: an exported step runs in one process; '
                    'remove this flag')
  remembering = config_lib.remembering(config)
  if remembering:
    raise UserError(f'{remembering}: an exported step does not know which '
                    'example is which; give another value')
  # TensorFlow starts once the flags are valid.
  from mentormix import runtime
  from mentormix.accelerator import stablehlo
  if runtime.IS_1_15:
    raise UserError(f'TensorFlow {runtime.VERSION} cannot write StableHLO; use '
                    'TensorFlow 2.x (scripts/setup_env.sh --runtime=tf2)')
  files.check_output(path, stablehlo.FILES, args.overwrite)
  runtime.select_device('')
  with files.new_directory(path) as directory:
    stablehlo.export(config, directory)
  log(f'{path}: ready for code/run_exported.py '
      f'{shlex.quote(f"--exported_dir={path}")}')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
