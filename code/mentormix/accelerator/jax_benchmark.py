"""Times an exported training step on the accelerator that JAX finds."""
import statistics
import time

import jax

_ROUNDS = 5  # Rounds of a benchmark; their median is reported.
_WARM_UP = 3  # Calls before the first round.


def benchmark(trainer, state, calls, steps_per_call, matmul_precision):
  """Times training from a copy of a state.

  Args:
    trainer: a `jax_runner.Trainer`.
    state: name -> array on the device; it does not change.
    calls: how many calls to time.
    steps_per_call: steps of each call.
    matmul_precision: of the products that training is compared with.

  Returns:
    Figures by name.
  """
  state = jax.tree_util.tree_map(lambda x: x.copy(), state)
  done = int(state['global_step'])

  def run(count):
    nonlocal state, done
    for _ in range(count):
      state, loss, _ = trainer.run(state, done, steps_per_call)
      done += steps_per_call
    return loss

  compile_seconds = _seconds(run, 1)
  run(_WARM_UP)
  calls_per_round = -(-calls // _ROUNDS)
  steps_per_round = calls_per_round * steps_per_call
  seconds = [_seconds(run, calls_per_round) / steps_per_round
             for _ in range(_ROUNDS)]
  second = statistics.median(seconds)
  device = jax.devices()[0]
  dtype = 'float32' if trainer.precision == 'float32' else 'bfloat16'
  size = 1024 if device.platform == 'cpu' else 8192
  peak = _matmul_flops(size, dtype, matmul_precision)
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


def _seconds(run, count):
  """Seconds until the device has finished `run(count)`."""
  begun = time.perf_counter()
  run(count).block_until_ready()
  return time.perf_counter() - begun


def _matmul_flops(size, dtype, precision):
  """Operations per second of the device in products of square matrices."""
  x = jax.random.normal(jax.random.key(0), [size, size], dtype)
  product = jax.jit(lambda x, y: jax.numpy.matmul(x, y, precision=precision))
  run = lambda count: [product(x, x) for _ in range(count)][-1]
  run(_WARM_UP).block_until_ready()
  second = statistics.median(_seconds(run, _ROUNDS) for _ in range(_ROUNDS))
  return 2.0 * size ** 3 / (second / _ROUNDS)
