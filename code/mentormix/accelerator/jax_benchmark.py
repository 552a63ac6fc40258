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

  first_call = _seconds(run, 1)
  run(_WARM_UP)
  calls_per_round = -(-calls // _ROUNDS)
  steps_per_round = calls_per_round * steps_per_call
  second = _median(run, calls_per_round) / steps_per_round
  device = jax.devices()[0]
  size = 1024 if device.platform == 'cpu' else 8192
  x = jax.random.normal(jax.random.key(0), [size, size], trainer.dtype)
  product = jax.jit(
      lambda x: jax.numpy.matmul(x, x, precision=matmul_precision))
  multiply = lambda count: [product(x) for _ in range(count)][-1]
  multiply(_WARM_UP)
  peak = 2.0 * size ** 3 * _ROUNDS / _median(multiply, _ROUNDS)
  flops = trainer.flops_per_step / second
  return {
      'device': device.device_kind,
      'jax': jax.__version__,
      'dtype': trainer.dtype,
      'matmul_precision': matmul_precision,
      'steps': _ROUNDS * steps_per_round,
      'first_call_seconds': first_call,
      'ms_per_step': 1000 * second,
      'steps_per_hour': 3600 / second,
      'tflops': flops / 1e12,
      'matmul_size': size,
      'matmul_tflops': peak / 1e12,
      'share_of_matmul': flops / peak}


def _median(run, count):
  """Median seconds of `run(count)`."""
  return statistics.median(_seconds(run, count) for _ in range(_ROUNDS))


def _seconds(run, count):
  """Seconds until the device has finished `run(count)`."""
  begun = time.perf_counter()
  run(count).block_until_ready()
  return time.perf_counter() - begun
