"""Trains from exported StableHLO modules with JAX, without TensorFlow."""
import collections
import dataclasses
import logging
import os
import signal

import jax
from jax import export
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir
import numpy as np

from mentormix import progress as progress_lib
from mentormix import signals as signals_lib
from mentormix.accelerator import jax_files
from mentormix.messages import log, RunError, UserError

if jax.__version_info__ < (0, 6):
  raise ImportError(f'this is JAX {jax.__version__}')
jax.config.update('jax_enable_x64', True)  # For the global step.
# Otherwise it lists the kinds of accelerators that it did not find.
logging.getLogger('jax').setLevel(logging.WARNING)

_CALLS_AHEAD = 8  # Calls queued on the device; a signal waits for them.


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
    UserError: the file is missing or damaged.
  """
  with mlir.make_ir_context() as context:
    context.allow_unregistered_dialects = True
    try:
      with open(path, 'rb') as f:
        module = stablehlo.deserialize_portable_artifact(context, f.read())
    except (OSError, ValueError) as error:
      raise UserError(f'{path} cannot be read by JAX {jax.__version__} '
                      f'({error}); make --exported_dir again')
    _clean(module, matmul_precision)
    data = stablehlo.serialize_portable_artifact_str(
        str(module), stablehlo.get_current_version())

  arguments, results = [
      [jax.ShapeDtypeStruct(row['shape'], row['dtype'])
       for row in description[rows]] for rows in ('arguments', 'results')]

  # The module replaces the body of a function with the same signature.
  stand_in = lambda *unused: [jax.numpy.zeros(x.shape, x.dtype)
                              for x in results]
  exported = export.export(jax.jit(stand_in, keep_unused=True))(*arguments)
  return dataclasses.replace(exported, mlir_module_serialized=data).call


def _clean(module, matmul_precision):
  """Removes what only XLA knows, and sets the precision."""
  precision = f'#stablehlo<precision {matmul_precision.upper()}>'
  precision = ir.Attribute.parse(f'[{precision}, {precision}]')
  for op in [module.operation] + list(_operations(module.operation)):
    for name in [a if isinstance(a, str) else a.name for a in op.attributes]:
      if name.startswith('mhlo.'):
        del op.attributes[name]
    if op.name in ('stablehlo.convolution', 'stablehlo.dot',
                   'stablehlo.dot_general'):
      op.attributes['precision_config'] = precision
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


def _draw(row, key):
  """Random numbers of the distribution that a row of step.json describes."""
  shape, dtype = row['shape'], row['dtype']
  how = row['distribution']
  if how == 'gumbel':
    return jax.random.gumbel(key, shape, dtype)
  if how == 'beta':
    return jax.random.beta(key, row['alpha'], row['alpha'], shape, dtype)
  if how == 'uniform':
    return jax.random.uniform(key, shape, dtype, row['low'], row['high'])
  # Integers from low to high, both included.
  return jax.random.randint(key, shape, row['low'], row['high'] + 1, dtype)


class Trainer:
  """Takes training steps on data that stay on the device.

  The batch of a step, its augmentation and its draws depend only on the seed
  and on global_step, so a resumed run draws the same numbers as an
  uninterrupted one.

  Attributes:
    dtype: of the arithmetic, float32 or bfloat16.
    flops_per_step: floating-point operations of a step.
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
    settings = description['settings']
    self.dtype = ('float32' if settings['precision'] == 'float32' else
                  'bfloat16')
    self.flops_per_step = description['flops_per_step']
    self._step, self._augment = [
        load_module(os.path.join(directory, f'{name}.stablehlo'),
                    description[name], matmul_precision)
        for name in ('step', 'augment')]
    self._description = description
    self._images, self._labels = jax.device_put((images, labels))
    self._key = jax.random.key(seed)
    self._batch_size = settings['batch_size']
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
    key = jax.random.fold_in(self._key, 0)
    return jax.numpy.stack([
        jax.random.permutation(jax.random.fold_in(key, epoch + e),
                               len(self._labels)) for e in range(epochs)])

  def _steps(self, state, images, labels, epoch, orders, key, count):
    """Several steps as one program."""
    def one(state, _):
      return self._one(state, images, labels, epoch, orders, key)

    if count == 1:
      state, (loss, selected) = one(state, None)
      return state, loss, selected
    state, (loss, selected) = jax.lax.scan(one, state, length=count)
    return state, loss[-1], selected[-1]

  def _one(self, state, images, labels, epoch, orders, key):
    """One step: batch, augmentation, update."""
    step = state['global_step']
    # Consecutive batches run through the orders of consecutive epochs.
    position = (step * self._batch_size
                + jax.numpy.arange(self._batch_size, dtype=step.dtype))
    index = orders[position // len(labels) - epoch, position % len(labels)]
    # Used by the light augmentation: an image begins mirrored or not, and
    # alternates from then on.
    begins = jax.random.bernoulli(jax.random.fold_in(key, 2),
                                  shape=labels.shape)
    flip = (begins[index] + position // len(labels)) % 2 == 1
    key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    keys = iter(jax.random.split(key, sum(
        row['kind'] == 'draw' for module in ('augment', 'step')
        for row in self._description[module]['arguments'])))

    def call(function, module, values):
      rows = self._description[module]
      values.update((row['name'], _draw(row, next(keys)))
                    for row in rows['arguments'] if row['kind'] == 'draw')
      results = function(*[values[row['name']] for row in rows['arguments']])
      return dict(zip([row['name'] for row in rows['results']], results))

    batch = call(self._augment, 'augment', {'images': images[index],
                                            'flip': flip})
    results = call(self._step, 'step', dict(
        state, images=batch['images'], labels=labels[index]))
    return ({name: results.get(name, value) for name, value in state.items()},
            (results['loss'], results['selected']))


def train(trainer, state, last, steps_per_call, save_interval, directory):
  """Trains and saves.

  Args:
    trainer: a `Trainer`.
    state: name -> array on the device; its buffers are reused.
    last: the step to train to.
    steps_per_call: how many steps to take in one call.
    save_interval: steps between checkpoints.
    directory: for the checkpoints.

  Returns:
    0, or 128 + n when signal n stopped the run, after a checkpoint.

  Raises:
    RunError: the loss is not finite; the checkpoints are from before.
  """
  signals = signals_lib.Signals()
  signals.install()
  done, stopped_by = int(state['global_step']), None
  progress = progress_lib.Progress(done, last)
  losses = collections.deque()
  while done < last and not stopped_by:
    # No call goes past a checkpoint.
    count = min(steps_per_call, last - done,
                save_interval - done % save_interval)
    state, loss, selected = trainer.run(state, done, count)
    done += count
    losses.append(loss)
    if len(losses) > _CALLS_AHEAD:
      losses.popleft().block_until_ready()
    if progress.is_due():
      _check_finite(loss, done)
      progress.show(done, loss=f'{float(loss):.3f}',
                    selected=f'{float(selected):.0%}')
    stopped_by = signals.stopped_by
    if (done % save_interval == 0 or done == last or stopped_by
        or signals.save):
      signals.save = False
      _check_finite(loss, done)
      jax_files.save(state, done, directory)
  progress.close(done)
  signals.restore()
  if stopped_by:
    name = signal.Signals(stopped_by).name
    log(f'stopped by {name} at step {done}, checkpoint saved')
    return 128 + stopped_by
  log(f'trained to step {done}')
  return 0


def _check_finite(loss, step):
  """Raises RunError unless a loss is finite. Waits for the device."""
  if not np.isfinite(loss):
    raise RunError(
        f'the loss is not a finite number at step {step}; the checkpoints are '
        'from before; export a lower --learning_rate and name another '
        '--output_dir')
