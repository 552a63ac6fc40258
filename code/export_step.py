r"""Writes the training step as a StableHLO module, for any accelerator runtime.

    python code/export_step.py --preset=published --data_dir=data/cifar10/0.4 \
      --output_dir=exported

Takes the flags of cifar_train_mentormix.py and writes what
code/run_exported.py trains from, which needs JAX and no TensorFlow:

    step.stablehlo, augment.stablehlo   the step; the augmentation of a batch
    step.json     their arguments and results, and the settings
    state.npz     the initial state: weights, momentum, averages, statistics
    data.npz      the images and labels, decoded, in the order of the records
    noise.json    where --data_dir has one

Flags that only concern TensorFlow's session, its input threads or when it saves
have no effect here. Needs TensorFlow 2.x and no accelerator. Exit codes:
0 finished, 1 failed, 2 bad input.
"""
import hashlib
import json
import os
import sys

from absl import flags
import numpy as np

import cifar_train_mentormix
from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import noise
from mentormix.command import log
from mentormix.command import UserError

STEP, AUGMENT = 'step.stablehlo', 'augment.stablehlo'
DESCRIPTION, STATE, DATA = 'step.json', 'state.npz', 'data.npz'
FILES = {STEP, AUGMENT, DESCRIPTION, STATE, DATA, noise.FACTS_FILE}


def define_flags():
  """Defines the flags; called once, by the script."""
  cifar_train_mentormix.define_flags()
  flags.adopt_module_key_flags(cifar_train_mentormix)
  flags.DEFINE_string('output_dir', '', 'The directory to write.')
  flags.register_validator('output_dir', bool, 'must be given')
  flags.DEFINE_boolean('overwrite', False,
                       'Replace what an earlier export has written.')


def main():
  """Flags -> graph -> modules, state and data."""
  args = flags.FLAGS
  path = os.path.normpath(args.output_dir)
  # There is no other run that --train_log_dir could mean.
  config = cifar_train_mentormix.config_from_flags()._replace(
      train_log_dir=path)
  config_lib.validate(config)
  if config.sync_replicas:
    raise UserError('--sync_replicas: an exported step is that of one process; '
                    'leave it out')
  files.check_output(path, FILES, args.overwrite)
  # pylint: disable=g-import-not-at-top
  from mentormix import runtime  # TensorFlow starts once the flags are good.
  if runtime.IS_1_15:
    raise UserError('TensorFlow %s cannot write StableHLO; use TensorFlow 2.x '
                    '(scripts/setup_env.sh --runtime=tf2)' % runtime.VERSION)
  runtime.select_device('')
  with files.new_directory(path) as directory:
    export(config, directory)
  log('%s: ready for code/run_exported.py --exported_dir=%s' % (path, path))


def export(config, directory):
  """Writes all files.

  Args:
    config: a `config.TrainConfig`, validated.
    directory: an existing directory.

  Returns:
    What step.json holds.

  Raises:
    UserError: data, student and MentorNet do not fit together.
    RunError: there is no module of this step.
  """
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix import mentornet
  from mentormix import operations
  from mentormix import runtime
  from mentormix import schedules
  from mentormix import step_export
  from mentormix import students
  dataset = datasets.get(config.dataset_name, config.data_dir)
  students.get(config.studentnet)
  schedules.dropout_table(config.example_dropout_rates)
  network = None
  if config.method in config_lib.WEIGHTED:
    if config.trained_mentornet_dir.startswith(mentornet.V_STAR):
      raise UserError(
          '--trained_mentornet_dir=%s is a Python function, which no module '
          'can hold; learn a MentorNet from it with code/train_mentornet.py'
          % config.trained_mentornet_dir)
    network = mentornet.load(config.trained_mentornet_dir,
                             config.loss_p_percentile)
  paths = datasets.find_files(dataset, 'train', config.data_dir)
  shards, count = datasets.check_files(dataset, 'train', paths,
                                       config.max_bad_records)
  if count < config.batch_size:
    raise UserError('--batch_size=%d: --data_dir=%s has %d examples only'
                    % (config.batch_size, config.data_dir, count))
  records = datasets.decode(dataset, 'train', shards, count)
  log('TensorFlow %s: exporting %s of %s on %s, %d examples' % (
      runtime.VERSION, config.method, config.studentnet, config.data_dir,
      count))
  # Uncompressed: what is to be fast is reading.
  np.savez(os.path.join(directory, DATA), images=records['image'],
           labels=records['label'], clean_labels=records['clean_label'])

  step = step_export.build_step(config, dataset, count, network)
  state = step_export.initial_state(step)
  np.savez(os.path.join(directory, STATE), **state)
  augment = step_export.build_augmentation(config.batch_size,
                                           dataset.image_size)
  description = {}
  for name, graph, values in ((STEP, step, state), (AUGMENT, augment, {})):
    module, arguments, results = step_export.lower(graph, values)
    with open(os.path.join(directory, name), 'wb') as f:
      f.write(module)
    description[name.partition('.')[0]] = dict(
        step_export.describe(graph, values, arguments, results),
        sha256=hashlib.sha256(module).hexdigest())
  description.update(
      settings=config._asdict(), num_examples=count,
      steps_per_epoch=count / config.batch_size, precision=config.precision,
      flops_per_step=operations.count(
          [x.op for x in step.outputs.values()]),
      versions={'tensorflow': runtime.VERSION, 'numpy': np.__version__,
                'python': sys.version.split()[0]})
  with open(os.path.join(directory, DESCRIPTION), 'w') as f:
    json.dump(description, f, indent=1, sort_keys=True)
    f.write('\n')
  noise.copy_facts(config.data_dir, directory)
  return description


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
