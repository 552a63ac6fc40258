r"""Trains an exported step with JAX, on any accelerator, without TensorFlow.

    python code/run_exported.py --exported_dir=exported --output_dir=run \
      --steps=2000 --benchmark=50

reads what code/export_step.py wrote. Images and state stay on the device, which
also draws every random number. The command writes config.json and checkpoints,
model.ckpt-<step>.npz, which hold the arrays by variable name and which
cifar_eval.py evaluates:

    python code/cifar_eval.py --checkpoint_dir=run --eval_dir=run/eval \
      --data_dir=data/cifar10/val --once

The same command resumes an interrupted run. It needs JAX 0.6 or later, NumPy
and absl-py. SIGUSR1 saves a checkpoint at once. Exit codes: 0 trained, 1
failed, 2 bad input; 129, 130, 143 or 141 stopped after a checkpoint: by SIGHUP,
Ctrl-C or SIGTERM, or because whatever read its output has gone.
"""
import json
import math
import os
import time

from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix.accelerator import jax_files
from mentormix.data import noise_facts
from mentormix.messages import log, UserError


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('exported_dir', '',
                      'The --output_dir of code/export_step.py.')
  flags.DEFINE_string('output_dir', '', 'Directory for the checkpoints.')
  for name in ('exported_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'steps', None, 'Step to train to, by default the --max_number_of_steps '
      'of the export. The schedule of MentorNet does not depend on it.',
      lower_bound=0)
  flags.DEFINE_integer(
      'steps_per_call', 1, 'Steps that the device takes in one call; 1 is best '
      'on a CPU.', lower_bound=1)
  flags.DEFINE_integer('seed', None, 'Seed of order, augmentation and mixing, '
                       'by default that of the export.', lower_bound=0)
  flags.DEFINE_integer(
      'save_interval_steps', 5000, 'Steps between checkpoints; the last '
      f'{jax_files.MAX_CHECKPOINTS} are kept.', lower_bound=1)
  flags.DEFINE_enum(
      'matmul_precision', 'highest', ['highest', 'high', 'default'],
      'Precision of float32 products: highest computes them in float32; with '
      'default a GPU uses TF32.')
  flags.DEFINE_integer('benchmark', 0, 'Calls to time before training; the '
                       'figures are printed as JSON.', lower_bound=0)


def main():
  """Flags -> modules, state and data on the device -> steps -> checkpoints."""
  args = flags.FLAGS
  description, config = jax_files.read_description(args.exported_dir)
  config = config._replace(
      train_log_dir=args.output_dir,
      seed=config.seed if args.seed is None else args.seed)
  last = config.max_number_of_steps if args.steps is None else args.steps
  if last > config.max_number_of_steps:
    raise UserError(
        f'--steps={last}: --exported_dir={args.exported_dir} was exported for '
        f'--max_number_of_steps={config.max_number_of_steps}')
  files.writable_directory(args.output_dir, 'output_dir')
  with files.only_writer(args.output_dir, 'output_dir'):
    start = jax_files.last_checkpoint(args.output_dir)
    started = float(math.ceil(time.time()))
    if start:  # Without a checkpoint, a failed start may have left settings.
      for change in config_lib.check_resume(config, flag='output_dir'):
        log(f'note: {change}')
      noise_facts.check_same(args.exported_dir, args.output_dir,
                             args.exported_dir)
      saved = config_lib.load(args.output_dir) or {}
      started = saved.get(config_lib.STARTED, 0.0)
    data = jax_files.read_arrays(os.path.join(args.exported_dir, 'data.npz'))
    state = jax_files.read_state(
        start or os.path.join(args.exported_dir, 'state.npz'), description)
    try:  # JAX starts once the flags and the files are valid.
      import jax

      from mentormix.accelerator import jax_benchmark
      from mentormix.accelerator import jax_runner
    except ImportError as error:
      raise UserError(f'JAX is missing or too old ({error}); pip install '
                      '"jax>=0.6", or "jax[cuda12]>=0.6" for a GPU')
    done = int(state['global_step'])
    device = jax.devices()[0]
    log(f'JAX {jax.__version__} on {device.device_kind}: {config.method} of '
        f'{config.studentnet}, {config.precision}, {len(data["labels"])} '
        f'examples, from step {done} to {last}')
    trainer = jax_runner.Trainer(
        args.exported_dir, description, data['images'], data['labels'],
        config.seed, args.matmul_precision)
    # Results of a step are committed to their device. If its arguments were
    # not, JAX would compile the second step again.
    state = jax.device_put(state, device)
    if args.benchmark:
      print(json.dumps(jax_benchmark.benchmark(
          trainer, state, args.benchmark, args.steps_per_call,
          args.matmul_precision), indent=2), flush=True)
    if done >= last:
      log(f'{args.output_dir} is already at step {done} of {last}')
      return 0
    config_lib.save(config, args.output_dir, **{config_lib.STARTED: started})
    noise_facts.copy_facts(args.exported_dir, args.output_dir)
    return jax_runner.train(trainer, state, last, args.steps_per_call,
                            args.save_interval_steps, args.output_dir)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
