r"""Trains an exported step with JAX, on any accelerator, without TensorFlow.

    python code/run_exported.py --exported_dir=exported --output_dir=run \
      --steps=2000 --benchmark=50

takes what code/export_step.py wrote. Images and state stay on the device; every
random number is drawn there. Writes model.ckpt-<step>.npz, arrays by variable
name, and config.json, which cifar_eval.py evaluates:

    python code/cifar_eval.py --checkpoint_dir=run --eval_dir=run/eval \
      --data_dir=data/cifar10/val --once

The same command goes on where it left off. Needs JAX 0.6 or later, NumPy and
absl-py. Exit codes: 0 trained, 1 failed, 2 bad input, 130 or 143 stopped by
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

ALL, AVERAGES, HALF_AVERAGES = 'all', 'averages', 'averages_float16'
CHECKPOINT = 'model.ckpt-%d.npz'
MAX_CHECKPOINTS = 5  # Whole ones that are kept on disk.
_OLDEST_JAX = (0, 6)
_LOG_SECS = 30
_CALLS_AHEAD = 8  # Of the device; a signal waits for so many.
_ROUNDS = 5  # Of a benchmark; the median counts.
_WARM_UP = 3  # Calls before the first round.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('exported_dir', '',
                      'The --output_dir of code/export_step.py.')
  flags.DEFINE_string('output_dir', '', 'Where checkpoints go.')
  for name in ('exported_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'steps', None, 'Step to train to; by default the --max_number_of_steps '
      'of the export, which also sets the pace of MentorNet.', lower_bound=0)
  flags.DEFINE_integer(
      'steps_per_call', 1, 'Steps that the device takes at a time. 1 is best '
      'on a CPU.', lower_bound=1)
  flags.DEFINE_integer('seed', None, 'Of order, augmentation and mixing; by '
                       'default that of the export.', lower_bound=0)
  flags.DEFINE_integer('save_interval_steps', 5000,
                       'Steps between checkpoints.', lower_bound=1)
  flags.DEFINE_enum(
      'save', ALL, [ALL, AVERAGES, HALF_AVERAGES],
      '%s: the state, of which the last %d are kept; %s: what evaluation '
      'needs, a third; %s: the same in 16 bits. Only with %s can a run go on.'
      % (ALL, MAX_CHECKPOINTS, AVERAGES, HALF_AVERAGES, ALL))
  flags.DEFINE_enum(
      'matmul_precision', 'highest', ['highest', 'high', 'default'],
      'Of products of float32: with highest they are float32; with default a '
      'GPU takes TF32.')
  flags.DEFINE_integer('benchmark', 0, 'Calls to time before training.',
                       lower_bound=0)
  flags.DEFINE_string('benchmark_json', '', 'Where to write these figures.')


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
    raise UserError('--steps=%d: --exported_dir=%s is of a training of %d steps'
                    % (last, args.exported_dir, config.max_number_of_steps))
  if args.benchmark_json and not args.benchmark:
    raise UserError('--benchmark_json=%s needs --benchmark'
                    % args.benchmark_json)
  files.writable_directory(args.output_dir, 'output_dir')
  if args.benchmark_json:
    files.writable_directory(os.path.dirname(args.benchmark_json) or '.',
                             'benchmark_json')
  with files.only_writer(args.output_dir, 'output_dir'):
    return _run(args, description, config, last)


def _run(args, description, config, last):
  start = last_checkpoint(args.output_dir)
  started = math.ceil(time.time()) * 1.0
  if start:  # A start that failed leaves settings that bind nobody.
    started = check_output(config)
  jax = import_jax()

  images, labels = read_data(args.exported_dir)
  state = read_state(start or os.path.join(args.exported_dir, 'state.npz'),
                     description)
  done = int(state['global_step'])
  device = jax.devices()[0]
  log('JAX %s on %s: %s of %s, %s, %d examples, from step %d to %d' % (
      jax.__version__, device.device_kind, config.method, config.studentnet,
      description['precision'], len(images), done, last))
  trainer = Trainer(args.exported_dir, description, images, labels, config.seed,
                    args.matmul_precision)
  # Said where: what a step gives is bound to its device, and what it takes must
  # be, too, or the second step would be compiled anew.
  state = jax.device_put(state, device)
  if args.benchmark:
    figures = benchmark(trainer, state, args.benchmark, args.steps_per_call,
                        args.matmul_precision)
    print_table(figures)
    if args.benchmark_json:
      write_json(figures, args.benchmark_json)
  if done >= last:
    log('%s is already at step %d of %d' % (args.output_dir, done, last))
    return 0
  config_lib.save(config, args.output_dir, **{config_lib.STARTED: started})
  noise.copy_facts(args.exported_dir, args.output_dir)
  return train(trainer, state, done, last, args.steps_per_call,
               args.save_interval_steps,
               functools.partial(save, description=description,
                                 directory=args.output_dir, what=args.save))


def import_jax():
  """JAX with 64-bit integers, which the global step is one of.

  Raises:
    UserError: it is missing or too old.
  """
  try:
    import jax  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    raise UserError('JAX is not installed (%s); pip install jax, or '
                    'jax[cuda12] for a GPU' % error)
  if jax.__version_info__ < _OLDEST_JAX:
    raise UserError('JAX %s is too old; install %s or later' % (
        jax.__version__, '.'.join(map(str, _OLDEST_JAX))))
  jax.config.update('jax_enable_x64', True)
  # It says which kinds of accelerators it has not found.
  logging.getLogger('jax').setLevel(logging.WARNING)
  return jax


def read_description(directory):
  """What step.json says, a dict.

  Raises:
    UserError: it is missing or damaged.
  """
  path = os.path.join(directory, 'step.json')
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
    raise UserError('%s cannot be read (%s); make --exported_dir with '
                    'code/export_step.py' % (path, error.strerror))
  except (ValueError, KeyError, TypeError):
    raise UserError('%s does not describe an exported step; make '
                    '--exported_dir with code/export_step.py' % path)
  return description


def settings(description, directory):
  """The `config.TrainConfig` that was exported."""
  saved = description['settings']
  try:
    config = config_lib.TrainConfig(**saved)
    config_lib.validate(config)
  except (TypeError, UserError) as error:
    raise UserError('%s does not hold the settings of a run (%s)' % (
        os.path.join(directory, 'step.json'), error))
  return config


def check_output(config):
  """Refuses to go on in a directory with another run.

  Returns:
    When the run was first started, in seconds since 1970.

  Raises:
    UserError: the line names the first setting that differs.
  """
  saved = config_lib.load(config.train_log_dir)
  for name, value in sorted(config._asdict().items()):
    if saved and name != 'train_log_dir' and saved.get(name) != value:
      raise UserError(
          '--output_dir=%s holds a run with other settings: --%s is %s there, '
          '%s here; name another directory'
          % (config.train_log_dir, name, saved.get(name), value))
  return (saved or {}).get(config_lib.STARTED, 0.0)


def _checkpoints(directory):
  """Step -> path of the checkpoints in a directory."""
  found = {}
  for path in glob.glob(os.path.join(glob.escape(directory), '*.npz')):
    match = re.fullmatch(r'model\.ckpt-(\d+)\.npz', os.path.basename(path))
    if match:
      found[int(match.group(1))] = path
  return found


def last_checkpoint(directory):
  """Path of the checkpoint that a run goes on from; None for a new one."""
  if glob.glob(os.path.join(glob.escape(directory), '*.index')):
    raise UserError('--output_dir=%s holds checkpoints of TensorFlow; name '
                    'another directory' % directory)
  found = _checkpoints(directory)
  return found[max(found)] if found else None


def _read_arrays(path, flag):
  """All arrays of an .npz file; UserError if it is damaged."""
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile,
          zlib.error) as error:
    raise UserError('%s cannot be read (%s); it is damaged or missing: %s'
                    % (path, error, flag))


def read_data(directory):
  """Images uint8 [N, H, W, 3] and labels int64 [N]."""
  arrays = _read_arrays(os.path.join(directory, 'data.npz'),
                        'make --exported_dir again')
  return arrays['images'], arrays['labels']


def read_state(path, description):
  """The state, name -> array.

  Raises:
    UserError: the file is damaged, of another step, or holds no whole state.
  """
  arrays = _read_arrays(path, 'remove it')
  state = {}
  for row in description['step']['arguments']:
    if row['kind'] != 'state':
      continue
    name = row['name']
    if name not in arrays:
      raise UserError('%s lacks %s, so training cannot go on from it: it was '
                      'written with another --save than %s, or by another run; '
                      'name another --output_dir' % (path, name, ALL))
    if (list(arrays[name].shape), arrays[name].dtype.name) != (
        row['shape'], row['dtype']):
      raise UserError('%s is of another run: %s is %s %s there; name another '
                      '--output_dir' % (path, name, arrays[name].dtype.name,
                                        list(arrays[name].shape)))
    state[name] = arrays[name]
  return state


def load_module(path, description, matmul_precision):
  """A StableHLO module as a function.

  Args:
    path: of the module, as TensorFlow wrote it.
    description: its arguments and results, from step.json.
    matmul_precision: what `highest` and so on mean for JAX; written into every
      product and convolution of the module, which leave it open.

  Returns:
    A function of the arguments, in order; it gives the results as a list, and
    can be called under jax.jit.

  Raises:
    UserError: the file is missing, damaged or of another export.
  """
  # pylint: disable=g-import-not-at-top
  import jax
  from jax import export
  from jax.extend.mlir import ir
  from jax.extend.mlir.dialects import stablehlo
  from jax.interpreters import mlir
  try:
    with open(path, 'rb') as f:
      data = f.read()
  except OSError as error:
    raise UserError('%s cannot be read: %s' % (path, error.strerror))
  if hashlib.sha256(data).hexdigest() != description['sha256']:
    raise UserError('%s is not what step.json beside it describes; make '
                    '--exported_dir again' % path)
  with mlir.make_ir_context() as context:
    context.allow_unregistered_dialects = True
    try:
      module = stablehlo.deserialize_portable_artifact(context, data)
    except ValueError as error:
      raise UserError('%s cannot be read by JAX %s (%s); make it again'
                      % (path, jax.__version__, error))
    _clean(module, ir, matmul_precision)
    data = stablehlo.serialize_portable_artifact_str(
        str(module), stablehlo.get_current_version())

  def specs(rows):
    return [jax.ShapeDtypeStruct(row['shape'], row['dtype'])
            for row in description[rows]]

  # A function that takes and gives the same, and JAX says what else belongs to
  # an export.
  def stand_in(*arguments):
    del arguments
    return [jax.numpy.zeros(x.shape, x.dtype) for x in specs('results')]
  exported = export.export(jax.jit(stand_in, keep_unused=True))(
      *specs('arguments'))
  return dataclasses.replace(exported, mlir_module_serialized=data).call


def _clean(module, ir, matmul_precision):
  """Takes out what is XLA's own, and sets the precision."""
  operations = [module.operation] + list(_operations(module.operation))
  precision = ir.Attribute.parse(
      '[#stablehlo<precision {0}>, #stablehlo<precision {0}>]'.format(
          matmul_precision.upper()))
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
  """All operations inside of one, at any depth."""
  for region in op.regions:
    for block in region.blocks:
      for inner in block.operations:
        yield inner.operation
        yield from _operations(inner.operation)


def draw(row, key):
  """Random numbers as step.json describes them."""
  from jax import random  # pylint: disable=g-import-not-at-top
  shape, dtype = row['shape'], row['dtype']
  how = row['distribution']
  if how == 'gumbel':
    return random.gumbel(key, shape, dtype)
  if how == 'beta':
    return random.beta(key, row['alpha'], row['alpha'], shape, dtype)
  if how == 'uniform':
    return random.uniform(key, shape, dtype, row['low'], row['high'])
  if how == 'integers':  # Both may come.
    return random.randint(key, shape, row['low'], row['high'] + 1, dtype)
  raise UserError('the distribution %s of %s in step.json is unknown'
                  % (how, row['name']))


class Trainer(object):
  """Steps of a training whose data are on the device.

  Attributes:
    jax: the module.
    precision: float32 or mixed.
    flops_per_step: operations of a step.

  The batch of a step, its augmentation and its draws follow from the seed and
  from global_step alone, so a run that goes on draws what it would have drawn.
  """

  def __init__(self, directory, description, images, labels, seed,
               matmul_precision):
    # pylint: disable=g-import-not-at-top
    import jax
    self.jax = jax
    self.precision = description['precision']
    self.flops_per_step = description['flops_per_step']
    self._step = load_module(os.path.join(directory, 'step.stablehlo'),
                             description['step'], matmul_precision)
    self._augment = load_module(os.path.join(directory, 'augment.stablehlo'),
                                description['augment'], matmul_precision)
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
      state: name -> array; it is used up.
      done: its global_step.
      count: how many steps.

    Returns:
      (state, loss, selected): the latter two of the last step. None of them may
      be there yet.
    """
    num_examples = len(self._labels)
    epoch = done * self._batch_size // num_examples
    # As many as a call can touch at most.
    epochs = -(-count * self._batch_size // num_examples) + 1
    if not self._known or self._known[:2] != (epoch, epochs):
      self._known = epoch, epochs, self._orders(epoch, epochs=epochs)
    return self._call(state, self._images, self._labels, epoch, self._known[2],
                      self._key, count=count)

  def _orders_of(self, epoch, epochs):
    """The order of the images in some epochs, [epochs, N]."""
    jax = self.jax
    return jax.numpy.stack([
        jax.random.permutation(
            jax.random.fold_in(jax.random.fold_in(self._key, 0), epoch + e),
            len(self._labels)) for e in range(epochs)])

  def _steps(self, state, images, labels, epoch, orders, key, count):
    """Some steps, as one program."""
    def one(state, _):
      state, loss, selected = self._one(state, images, labels, epoch, orders,
                                        key)
      return state, (loss, selected)

    if count == 1:
      state, (loss, selected) = one(state, None)
      return state, loss, selected
    state, (loss, selected) = self.jax.lax.scan(one, state, length=count)
    return state, loss[-1], selected[-1]

  def _one(self, state, images, labels, epoch, orders, key):
    """One step: batch, augmentation, update."""
    jax = self.jax
    step = state['global_step']
    # Batches follow one another through the orders of the epochs.
    position = (step * self._batch_size
                + jax.numpy.arange(self._batch_size, dtype=step.dtype))
    index = orders[position // len(labels) - epoch, position % len(labels)]
    key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    keys = iter(jax.random.split(key, sum(
        row['kind'] == 'draw' for module in ('augment', 'step')
        for row in self._description[module]['arguments'])))

    def call(function, module, values):
      values.update((row['name'], draw(row, next(keys)))
                    for row in self._description[module]['arguments']
                    if row['kind'] == 'draw')
      results = function(*[
          values[row['name']]
          for row in self._description[module]['arguments']])
      return dict(zip([row['name'] for row in
                       self._description[module]['results']], results))

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
    state: name -> array on the device; it is used up.
    done: its global_step.
    last: the step to train to.
    steps_per_call: how many steps to ask for at a time.
    save_interval: steps between checkpoints.
    save_state: a callable: state, step.

  Returns:
    0, or 128 + n when signal n ended the run, after a checkpoint.

  Raises:
    RunError: the loss is not a number any more; what was saved is from before.
  """
  signals = command.StopSignals()
  signals.install(signal.SIGTERM, signal.SIGINT)
  saved = done
  begun = shown = None  # (time, step): after the first call; at the last line.
  ahead = collections.deque()

  def check(loss):
    loss = float(loss)  # Waits for the device.
    if not np.isfinite(loss):
      raise RunError(
          'the loss is not a number any more at step %d; what is saved is from '
          'before; export a lower --learning_rate and name another --output_dir'
          % done)
    return loss

  while done < last and not signals.received:
    # No call goes past a checkpoint.
    count = min(steps_per_call, last - done,
                save_interval - done % save_interval)
    state, loss, selected = trainer.run(state, done, count)
    done += count
    ahead.append(loss)
    if len(ahead) > _CALLS_AHEAD:
      ahead.popleft().block_until_ready()
    if not shown or done == last or time.time() - shown[0] >= _LOG_SECS:
      line = 'step %d/%d (%.1f%%)  loss %.3f  selected %.0f%%' % (
          done, last, 100.0 * done / last, check(loss), 100 * float(selected))
      now = time.time(), done
      if shown:
        line += _rates(shown, now, trainer.flops_per_step)
        line += '  %.0f s left' % ((last - done) * (now[0] - begun[0])
                                   / (done - begun[1]))
      log(line)
      begun, shown = begun or now, now
    if done % save_interval == 0:
      check(loss)
      save_state(state, done)
      saved = done
  if saved != done:
    check(loss)
    save_state(state, done)
  signals.restore()
  if signals.received:
    log('stopped by %s at step %d, checkpoint saved'
        % (signal.Signals(signals.received).name, done))
    return 128 + signals.received
  log('trained to step %d' % done)
  return 0


def _rates(before, now, flops_per_step):
  """How fast it went between two pairs (time in seconds, step), for a line."""
  rate = (now[1] - before[1]) / max(now[0] - before[0], 1e-9)
  return '  %.3g step/s  %.4g ms/step  %.3g TFLOP/s' % (
      rate, 1000 / rate, flops_per_step * rate / 1e12)


def save(state, step, description, directory, what):
  """Writes a checkpoint, whole or not at all; drops the oldest whole ones.

  Args:
    state: name -> array.
    step: its global_step.
    description: what step.json says.
    directory: where to.
    what: one of the values of --save.

  Raises:
    RunError: a value is too large for 16 bits.
  """
  names = [row['name'] for row in description['step']['arguments']
           if row['kind'] == 'state' and (what == ALL or row['evaluated'])]
  arrays = {name: np.asarray(state[name]) for name in names}
  if what == HALF_AVERAGES:
    for name, value in arrays.items():
      if np.abs(value).max() > np.finfo(np.float16).max:
        raise RunError('%s is too large for 16 bits at step %d; the same '
                       'command with --save=%s and another --output_dir'
                       % (name, step, AVERAGES))
      arrays[name] = value.astype(np.float16)
  path = os.path.join(directory, CHECKPOINT % step)
  with files.replaced(path, 'wb') as f:
    np.savez(f, **arrays)
  if what == ALL:
    found = _checkpoints(directory)
    for old in sorted(found)[:-MAX_CHECKPOINTS]:
      os.remove(found[old])


def benchmark(trainer, state, calls, steps_per_call, matmul_precision):
  """Times training from a copy of a state.

  Args:
    trainer: a `Trainer`.
    state: name -> array on the device; it stays.
    calls: how many to time.
    steps_per_call: steps of each.
    matmul_precision: of the products that it is compared with.

  Returns:
    Figures by name, for `print_table`.
  """
  jax = trainer.jax
  state = jax.tree_util.tree_map(lambda x: x.copy(), state)
  done = int(state['global_step'])

  def run(count):
    nonlocal state, done
    for _ in range(count):
      state, loss, _ = trainer.run(state, done, steps_per_call)
      done += steps_per_call
    loss.block_until_ready()

  begun = time.perf_counter()
  run(1)
  compile_seconds = time.perf_counter() - begun
  run(_WARM_UP)
  seconds = []
  per_round = -(-calls // _ROUNDS)
  for _ in range(_ROUNDS):
    begun = time.perf_counter()
    run(per_round)
    seconds.append((time.perf_counter() - begun) / per_round / steps_per_call)
  second = statistics.median(seconds)
  dtype = 'float32' if trainer.precision == 'float32' else 'bfloat16'
  device = jax.devices()[0]
  size = 2048 if device.platform == 'cpu' else 8192
  peak = _matmul_flops(jax, size, dtype, matmul_precision)
  flops = trainer.flops_per_step / second
  return collections.OrderedDict([
      ('device', device.device_kind), ('jax', jax.__version__),
      ('precision', trainer.precision),
      ('matmul_precision', matmul_precision),
      ('steps_per_call', steps_per_call), ('steps', _ROUNDS * per_round
                                           * steps_per_call),
      ('first_call_seconds', compile_seconds),
      ('ms_per_step', 1000 * second),
      ('ms_per_step_least', 1000 * min(seconds)),
      ('ms_per_step_most', 1000 * max(seconds)),
      ('steps_per_hour', 3600 / second),
      ('gflop_per_step', trainer.flops_per_step / 1e9),
      ('tflops', flops / 1e12),
      ('matmul', '%d x %d, %s' % (size, size, dtype)),
      ('matmul_tflops', peak / 1e12), ('share_of_matmul', flops / peak)])


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
    print('%-20s %s' % (name.replace('_', ' '), value if isinstance(
        value, (str, int)) else '%.4g' % value), flush=True)


def write_json(figures, path):
  """Writes figures, whole or not at all."""
  with files.replaced(path) as f:
    json.dump(figures, f, indent=1)
    f.write('\n')


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
