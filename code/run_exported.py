r"""Trains an exported step with JAX, on any accelerator, without TensorFlow.

    python code/run_exported.py --exported_dir=exported --output_dir=run \
      --steps=2000 --benchmark=50

reads what code/export_step.py wrote. Images and state stay on the device, which
also draws every random number. The command writes model.ckpt-<step>.npz, which
holds the arrays by variable name, and config.json. cifar_eval.py evaluates
them:

    python code/cifar_eval.py --checkpoint_dir=run --eval_dir=run/eval \
      --data_dir=data/cifar10/val --once

The same command resumes an interrupted run. It needs JAX 0.6 or later, NumPy
and absl-py. Exit codes: 0 trained, 1 failed, 2 bad input, 130 or 143 stopped by
Ctrl-C or SIGTERM after a checkpoint.
"""
import collections
import dataclasses
import functools
import glob
import hashlib
import json
import logging
import math
import os
import re
import signal
import statistics
import time
import zipfile
import zlib

from absl import flags
import numpy as np

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import noise
from mentormix.command import log
from mentormix.command import RunError
from mentormix.command import UserError

CHECKPOINT = 'model.ckpt-%d.npz'
MAX_CHECKPOINTS = 5  # How many of the newest stay on disk.
_OLDEST_JAX = (0, 6)
_LOG_SECS = 30
_CALLS_AHEAD = 8  # Calls queued on the device; a signal waits for them.
_ROUNDS = 5  # Rounds of a benchmark; their median is reported.
_WARM_UP = 3  # Calls before the first round.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('exported_dir', '',
                      'The --output_dir of code/export_step.py.')
  flags.DEFINE_string('output_dir', '', 'Directory for the checkpoints.')
  for name in ('exported_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'steps', None, 'Step to train to; by default the --max_number_of_steps '
      'of the export, which also sets the pace of MentorNet.', lower_bound=0)
  flags.DEFINE_integer(
      'steps_per_call', 1, 'Steps that the device takes in one call. 1 is best '
      'on a CPU.', lower_bound=1)
  flags.DEFINE_integer('seed', None, 'Seed of order, augmentation and mixing; '
                       'by default that of the export.', lower_bound=0)
  flags.DEFINE_integer(
      'save_interval_steps', 5000, 'Steps between checkpoints, of which the '
      f'last {MAX_CHECKPOINTS} are kept.', lower_bound=1)
  flags.DEFINE_enum(
      'matmul_precision', 'highest', ['highest', 'high', 'default'],
      'Precision of float32 products: highest computes them in float32; with '
      'default a GPU uses TF32.')
  flags.DEFINE_integer('benchmark', 0, 'Calls to time before training.',
                       lower_bound=0)
  flags.DEFINE_string('benchmark_json', '',
                      'File to write the figures of --benchmark to.')


def main():
  """Flags -> modules, state and data on the device -> steps -> checkpoints."""
  args = flags.FLAGS
  description = read_description(args.exported_dir)
  config = settings(description, args.exported_dir)
  config = config._replace(
      train_log_dir=args.output_dir,
      seed=config.seed if args.seed is None else args.seed)
  last = config.max_number_of_steps if args.steps is None else args.steps
  if last > config.max_number_of_steps:
    raise UserError(
        f'--steps={last}: --exported_dir={args.exported_dir} is of a training '
        f'of {config.max_number_of_steps} steps')
  if args.benchmark_json and not args.benchmark:
    raise UserError(f'--benchmark_json={args.benchmark_json} needs --benchmark')
  files.writable_directory(args.output_dir, 'output_dir')
  if args.benchmark_json:
    files.writable_directory(os.path.dirname(args.benchmark_json) or '.',
                             'benchmark_json')
  with files.only_writer(args.output_dir, 'output_dir'):
    return _run(args, description, config, last)


def _run(args, description, config, last):
  """Benchmarks and trains in an output directory that nobody else uses."""
  start = last_checkpoint(args.output_dir)
  started = float(math.ceil(time.time()))
  if start:  # Without a checkpoint, settings that a failed start left are free.
    for change in config_lib.check_resume(config, flag='output_dir'):
      log(f'note: {change}')
    saved = config_lib.load(args.output_dir) or {}
    started = saved.get(config_lib.STARTED, 0.0)
  jax = import_jax()

  images, labels = read_data(args.exported_dir)
  state = read_state(start or os.path.join(args.exported_dir, 'state.npz'),
                     description)
  done = int(state['global_step'])
  device = jax.devices()[0]
  log(f'JAX {jax.__version__} on {device.device_kind}: {config.method} of '
      f'{config.studentnet}, {description["precision"]}, {len(images)} '
      f'examples, from step {done} to {last}')
  trainer = Trainer(args.exported_dir, description, images, labels, config.seed,
                    args.matmul_precision)
  # Results of a step are committed to their device. If its arguments were not,
  # JAX would compile the second step again.
  state = jax.device_put(state, device)
  if args.benchmark:
    figures = benchmark(trainer, state, args.benchmark, args.steps_per_call,
                        args.matmul_precision)
    print_table(figures)
    if args.benchmark_json:
      write_json(figures, args.benchmark_json)
  if done >= last:
    log(f'{args.output_dir} is already at step {done} of {last}')
    return 0
  config_lib.save(config, args.output_dir, **{config_lib.STARTED: started})
  noise.copy_facts(args.exported_dir, args.output_dir)
  return train(trainer, state, done, last, args.steps_per_call,
               args.save_interval_steps,
               functools.partial(save, directory=args.output_dir))


def import_jax():
  """JAX with 64-bit integers, which the global step needs.

  Raises:
    UserError: JAX is missing or too old.
  """
  try:
    import jax  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    raise UserError(f'JAX is not installed ({error}); pip install jax, or '
                    'jax[cuda12] for a GPU')
  if jax.__version_info__ < _OLDEST_JAX:
    oldest = '.'.join(map(str, _OLDEST_JAX))
    raise UserError(f'JAX {jax.__version__} is too old; install {oldest} or '
                    'later')
  jax.config.update('jax_enable_x64', True)
  # It would list the kinds of accelerators that it has not found.
  logging.getLogger('jax').setLevel(logging.WARNING)
  return jax


def read_description(directory):
  """The content of step.json, a dict.

  Raises:
    UserError: the file is missing or damaged.
  """
  path = os.path.join(directory, 'step.json')
  remedy = 'make --exported_dir with code/export_step.py'
  try:
    with open(path) as f:
      description = json.load(f)
    for module in ('step', 'augment'):
      _ = description[module]['sha256']
      for rows in ('arguments', 'results'):
        for row in description[module][rows]:
          _ = row['name'], row['kind'], row['shape'], row['dtype']
    _ = (description['settings'], description['precision'],
         description['flops_per_step'])
  except OSError as error:
    raise UserError(f'{path} cannot be read ({error.strerror}); {remedy}')
  except (ValueError, KeyError, TypeError):
    raise UserError(f'{path} does not describe an exported step; {remedy}')
  return description


def settings(description, directory):
  """The `config.TrainConfig` that was exported."""
  try:
    config = config_lib.TrainConfig(**description['settings'])
    config_lib.validate(config)
  except (TypeError, UserError) as error:
    path = os.path.join(directory, 'step.json')
    raise UserError(f'{path} does not hold the settings of a run ({error})')
  return config


def _checkpoints(directory):
  """Step -> path of the checkpoints in a directory."""
  found = {}
  for path in glob.glob(os.path.join(glob.escape(directory), '*.npz')):
    match = re.fullmatch(r'model\.ckpt-(\d+)\.npz', os.path.basename(path))
    if match:
      found[int(match.group(1))] = path
  return found


def last_checkpoint(directory):
  """Path of the checkpoint that a run resumes from; None for a new run."""
  if glob.glob(os.path.join(glob.escape(directory), '*.index')):
    raise UserError(f'--output_dir={directory} holds checkpoints of '
                    'TensorFlow; name another directory')
  found = _checkpoints(directory)
  return found[max(found)] if found else None


def _read_arrays(path, remedy):
  """All arrays of an .npz file; UserError with the remedy if it is damaged."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile,
          zlib.error) as error:
    raise UserError(f'{path} cannot be read ({error}); it is damaged or '
                    f'missing: {remedy}')


def read_data(directory):
  """Images uint8 [N, H, W, 3] and labels int64 [N]."""
  arrays = _read_arrays(os.path.join(directory, 'data.npz'),
                        'make --exported_dir again')
  return arrays['images'], arrays['labels']


def read_state(path, description):
  """The state, name -> array.

  Raises:
    UserError: the file is damaged or belongs to another run.
  """
  arrays = _read_arrays(path, 'remove it')
  state = {}
  for row in description['step']['arguments']:
    if row['kind'] != 'state':
      continue
    name, expected = row['name'], f'{row["dtype"]} {row["shape"]}'
    found = 'missing'
    if name in arrays:
      found = f'{arrays[name].dtype.name} {list(arrays[name].shape)}'
    if found != expected:
      raise UserError(f'{path} belongs to another run: {name} is {found} there '
                      f'instead of {expected}; name another --output_dir')
    state[name] = arrays[name]
  return state


def load_module(path, description, matmul_precision):
  """A StableHLO module as a function.

  Args:
    path: of the module that TensorFlow wrote.
    description: its arguments and results, from step.json.
    matmul_precision: highest, high or default, as JAX defines them. The module
      leaves the precision of its products and convolutions open.

  Returns:
    A function from the arguments, in order, to the list of results. It can be
    called under jax.jit.

  Raises:
    UserError: the file is missing, damaged or from another export.
  """
  jax = import_jax()
  # pylint: disable=g-import-not-at-top
  from jax import export
  from jax.extend.mlir.dialects import stablehlo
  from jax.interpreters import mlir
  try:
    with open(path, 'rb') as f:
      data = f.read()
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}')
  if hashlib.sha256(data).hexdigest() != description['sha256']:
    raise UserError(f'{path} is not what step.json beside it describes; make '
                    '--exported_dir again')
  with mlir.make_ir_context() as context:
    context.allow_unregistered_dialects = True
    try:
      module = stablehlo.deserialize_portable_artifact(context, data)
    except ValueError as error:
      raise UserError(f'{path} cannot be read by JAX {jax.__version__} '
                      f'({error}); make it again')
    _clean(module, matmul_precision)
    data = stablehlo.serialize_portable_artifact_str(
        str(module), stablehlo.get_current_version())

  arguments, results = [
      [jax.ShapeDtypeStruct(row['shape'], row['dtype'])
       for row in description[rows]] for rows in ('arguments', 'results')]

  def stand_in(*unused_arguments):
    return [jax.numpy.zeros(x.shape, x.dtype) for x in results]
  # JAX exports a function with the same signature; the module replaces its
  # body.
  exported = export.export(jax.jit(stand_in, keep_unused=True))(*arguments)
  return dataclasses.replace(exported, mlir_module_serialized=data).call


def _clean(module, matmul_precision):
  """Removes what only XLA knows, and sets the precision."""
  from jax.extend.mlir import ir  # pylint: disable=g-import-not-at-top
  operations = [module.operation] + list(_operations(module.operation))
  precision = f'#stablehlo<precision {matmul_precision.upper()}>'
  precision = ir.Attribute.parse(f'[{precision}, {precision}]')
  for op in operations:
    for name in [a if isinstance(a, str) else a.name for a in op.attributes]:
      if name.startswith('mhlo.'):
        del op.attributes[name]
    if op.name in ('stablehlo.convolution', 'stablehlo.dot',
                   'stablehlo.dot_general'):
      op.attributes['precision_config'] = precision
  for op in operations:
    if op.name == 'mhlo.copy':
      op.results[0].replace_all_uses_with(op.operands[0])
      op.erase()


def _operations(op):
  """All operations inside an operation, at any depth."""
  for region in op.regions:
    for block in region.blocks:
      for inner in block.operations:
        yield inner.operation
        yield from _operations(inner.operation)


def draw(row, key):
  """Random numbers of the distribution that a row of step.json describes."""
  from jax import random  # pylint: disable=g-import-not-at-top
  shape, dtype = row['shape'], row['dtype']
  how = row['distribution']
  if how == 'gumbel':
    return random.gumbel(key, shape, dtype)
  if how == 'beta':
    return random.beta(key, row['alpha'], row['alpha'], shape, dtype)
  if how == 'uniform':
    return random.uniform(key, shape, dtype, row['low'], row['high'])
  if how == 'integers':  # From low to high, both included.
    return random.randint(key, shape, row['low'], row['high'] + 1, dtype)
  raise UserError(f'the distribution {how} of {row["name"]} in step.json is '
                  'unknown')


class Trainer:
  """Takes training steps on data that stay on the device.

  Attributes:
    precision: float32 or mixed.
    flops_per_step: floating-point operations of a step.

  The batch of a step, its augmentation and its draws depend only on the seed
  and on global_step, so a resumed run draws the same numbers as an
  uninterrupted one.
  """

  def __init__(self, directory, description, images, labels, seed,
               matmul_precision):
    """Loads the modules and copies the data to the device.

    Args:
      directory: that export_step.py wrote.
      description: the content of its step.json.
      images: uint8 [N, H, W, 3].
      labels: int64 [N].
      seed: of all random numbers.
      matmul_precision: as for `load_module`.
    """
    self._jax = jax = import_jax()
    self.precision = description['precision']
    self.flops_per_step = description['flops_per_step']
    self._step, self._augment = [
        load_module(os.path.join(directory, f'{name}.stablehlo'),
                    description[name], matmul_precision)
        for name in ('step', 'augment')]
    self._description = description
    self._images, self._labels = jax.device_put((images, labels))
    self._key = jax.random.key(seed)
    self._batch_size = description['settings']['batch_size']
    self._call = jax.jit(self._steps, static_argnames='count',
                         donate_argnums=0)
    self._orders = jax.jit(self._orders_of, static_argnames='epochs')
    self._known = None  # First epoch, number of epochs, their orders.

  def run(self, state, done, count):
    """Takes steps.

    Args:
      state: name -> array; its buffers are reused.
      done: its global_step.
      count: how many steps to take.

    Returns:
      (state, loss, selected): loss and share of selected examples are those of
      the last step. The device may still be computing them.
    """
    num_examples = len(self._labels)
    epoch = done * self._batch_size // num_examples
    # The most epochs that a call can touch.
    epochs = -(-count * self._batch_size // num_examples) + 1
    if not self._known or self._known[:2] != (epoch, epochs):
      self._known = epoch, epochs, self._orders(epoch, epochs=epochs)
    return self._call(state, self._images, self._labels, epoch, self._known[2],
                      self._key, count=count)

  def _orders_of(self, epoch, epochs):
    """The order of the images in consecutive epochs, [epochs, N]."""
    jax = self._jax
    return jax.numpy.stack([
        jax.random.permutation(
            jax.random.fold_in(jax.random.fold_in(self._key, 0), epoch + e),
            len(self._labels)) for e in range(epochs)])

  def _steps(self, state, images, labels, epoch, orders, key, count):
    """Several steps as one program."""
    def one(state, _):
      state, loss, selected = self._one(state, images, labels, epoch, orders,
                                        key)
      return state, (loss, selected)

    if count == 1:
      state, (loss, selected) = one(state, None)
      return state, loss, selected
    state, (loss, selected) = self._jax.lax.scan(one, state, length=count)
    return state, loss[-1], selected[-1]

  def _one(self, state, images, labels, epoch, orders, key):
    """One step: batch, augmentation, update."""
    jax = self._jax
    step = state['global_step']
    # Consecutive batches run through the orders of consecutive epochs.
    position = (step * self._batch_size
                + jax.numpy.arange(self._batch_size, dtype=step.dtype))
    index = orders[position // len(labels) - epoch, position % len(labels)]
    key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    keys = iter(jax.random.split(key, sum(
        row['kind'] == 'draw' for module in ('augment', 'step')
        for row in self._description[module]['arguments'])))

    def call(function, module, values):
      rows = self._description[module]
      values.update((row['name'], draw(row, next(keys)))
                    for row in rows['arguments'] if row['kind'] == 'draw')
      results = function(*[values[row['name']] for row in rows['arguments']])
      return dict(zip([row['name'] for row in rows['results']], results))

    batch = call(self._augment, 'augment', {'images': images[index]})
    results = call(self._step, 'step', dict(
        state, images=batch['images'], labels=labels[index]))
    return ({name: results.get(name, value) for name, value in state.items()},
            results['loss'], results['selected'])


def train(trainer, state, done, last, steps_per_call, save_interval,
          save_state):
  """Trains and saves.

  Args:
    trainer: a `Trainer`.
    state: name -> array on the device; its buffers are reused.
    done: its global_step.
    last: the step to train to.
    steps_per_call: how many steps to take in one call.
    save_interval: steps between checkpoints.
    save_state: a callable: state, step.

  Returns:
    0, or 128 + n when signal n ended the run, after a checkpoint.

  Raises:
    RunError: the loss is not a number any more; checkpoints are from before.
  """
  signals = command.StopSignals()
  signals.install(signal.SIGTERM, signal.SIGINT)
  show = _progress(last, trainer.flops_per_step)
  saved = done
  ahead = collections.deque()
  while done < last and not signals.received:
    # No call goes past a checkpoint.
    count = min(steps_per_call, last - done,
                save_interval - done % save_interval)
    state, loss, selected = trainer.run(state, done, count)
    done += count
    ahead.append(loss)
    if len(ahead) > _CALLS_AHEAD:
      ahead.popleft().block_until_ready()
    show(done, loss, selected)
    if done % save_interval == 0:
      _finite(loss, done)
      save_state(state, done)
      saved = done
  if saved != done:
    _finite(loss, done)
    save_state(state, done)
  signals.restore()
  if signals.received:
    name = signal.Signals(signals.received).name
    log(f'stopped by {name} at step {done}, checkpoint saved')
    return 128 + signals.received
  log(f'trained to step {done}')
  return 0


def _finite(loss, step):
  """The loss as a float, once the device has it; RunError if it is not one."""
  loss = float(loss)
  if not np.isfinite(loss):
    raise RunError(
        f'the loss is not a number any more at step {step}; the checkpoints '
        'are from before; export a lower --learning_rate and name another '
        '--output_dir')
  return loss


def _progress(last, flops_per_step):
  """A function of step, loss and selected that logs a line now and then."""
  begun = shown = None  # (time, step): after the first call; at the last line.

  def show(done, loss, selected):
    nonlocal begun, shown
    if shown and done < last and time.time() - shown[0] < _LOG_SECS:
      return
    loss = _finite(loss, done)  # Waits for the device.
    line = (f'step {done}/{last} ({done / last:.1%})  loss {loss:.3f}  '
            f'selected {float(selected):.0%}')
    now = time.time()
    if shown:
      rate = (done - shown[1]) / max(now - shown[0], 1e-9)
      left = (last - done) * (now - begun[0]) / (done - begun[1])
      line += (f'  {rate:.3g} step/s  {1000 / rate:.4g} ms/step  '
               f'{flops_per_step * rate / 1e12:.3g} TFLOP/s  {left:.0f} s left')
    log(line)
    shown = now, done
    begun = begun or shown
  return show


def save(state, step, directory):
  """Writes a checkpoint atomically; removes the oldest beyond MAX_CHECKPOINTS.

  Args:
    state: name -> array.
    step: its global_step.
    directory: an existing directory.
  """
  arrays = {name: np.asarray(value) for name, value in state.items()}
  with files.replaced(os.path.join(directory, CHECKPOINT % step), 'wb') as f:
    np.savez(f, **arrays)
  found = _checkpoints(directory)
  for old in sorted(found)[:-MAX_CHECKPOINTS]:
    os.remove(found[old])


def benchmark(trainer, state, calls, steps_per_call, matmul_precision):
  """Times training from a copy of a state.

  Args:
    trainer: a `Trainer`.
    state: name -> array on the device; it does not change.
    calls: how many calls to time.
    steps_per_call: steps of each call.
    matmul_precision: of the products that training is compared with.

  Returns:
    Figures by name, for `print_table`.
  """
  jax = import_jax()
  state = jax.tree_util.tree_map(lambda x: x.copy(), state)
  done = int(state['global_step'])

  def timed(count):
    nonlocal state, done
    begun = time.perf_counter()
    for _ in range(count):
      state, loss, _ = trainer.run(state, done, steps_per_call)
      done += steps_per_call
    loss.block_until_ready()
    return time.perf_counter() - begun

  compile_seconds = timed(1)
  timed(_WARM_UP)
  calls_per_round = -(-calls // _ROUNDS)
  steps_per_round = calls_per_round * steps_per_call
  seconds = [timed(calls_per_round) / steps_per_round for _ in range(_ROUNDS)]
  second = statistics.median(seconds)
  device = jax.devices()[0]
  dtype = 'float32' if trainer.precision == 'float32' else 'bfloat16'
  size = 2048 if device.platform == 'cpu' else 8192
  peak = _matmul_flops(jax, size, dtype, matmul_precision)
  flops = trainer.flops_per_step / second
  return {
      'device': device.device_kind,
      'jax': jax.__version__,
      'precision': trainer.precision,
      'matmul_precision': matmul_precision,
      'steps_per_call': steps_per_call,
      'steps': _ROUNDS * steps_per_round,
      'first_call_seconds': compile_seconds,
      'ms_per_step': 1000 * second,
      'ms_per_step_least': 1000 * min(seconds),
      'ms_per_step_most': 1000 * max(seconds),
      'steps_per_hour': 3600 / second,
      'gflop_per_step': trainer.flops_per_step / 1e9,
      'tflops': flops / 1e12,
      'matmul': f'{size} x {size}, {dtype}',
      'matmul_tflops': peak / 1e12,
      'share_of_matmul': flops / peak}


def _matmul_flops(jax, size, dtype, precision):
  """Operations per second of the device in products of square matrices."""
  x = jax.random.normal(jax.random.key(0), [size, size], dtype)
  product = jax.jit(lambda x, y: jax.numpy.matmul(x, y, precision=precision))
  for _ in range(_WARM_UP):
    product(x, x).block_until_ready()
  seconds = []
  for _ in range(_ROUNDS):
    begun = time.perf_counter()
    for _ in range(_ROUNDS):
      y = product(x, x)
    y.block_until_ready()
    seconds.append((time.perf_counter() - begun) / _ROUNDS)
  return 2.0 * size ** 3 / statistics.median(seconds)


def print_table(figures):
  """Prints a name and a value per line."""
  for name, value in figures.items():
    if isinstance(value, float):
      value = f'{value:.4g}'
    print(f'{name.replace("_", " "):20} {value}', flush=True)


def write_json(figures, path):
  """Writes figures atomically."""
  with files.replaced(path) as f:
    json.dump(figures, f, indent=1)
    f.write('\n')


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
