"""Mixed precision: its types, its loss scaling, the devices that have it."""
import re

from mentormix import runtime
from mentormix.messages import log, UserError
from mentormix.runtime import device_lib, tf

_CPU_FACTS = '/proc/cpuinfo'  # On Linux.
_BFLOAT16 = {'avx512_bf16', 'amx_bf16', 'bf16'}  # There; the last one is ARM's.


def arithmetic(precision):
  """The dtype of the arithmetic that a student is built with.

  Mixed precision is bfloat16 on TensorFlow 2.x. It has the range of float32, so
  the loss needs no scaling. On 1.15 it is float16: TensorFlow's graph rewrite
  inserts it into a graph of float32, with `scale_loss`.

  Args:
    precision: as of --precision.
  """
  if precision == 'mixed' and not runtime.IS_1_15:
    return tf.bfloat16
  return tf.float32


def scale_loss(optimizer, precision):
  """`optimizer`, with dynamic loss scaling if `precision` needs it.

  The scale keeps small gradients within float16. A step whose gradients
  overflow leaves the weights as they are and halves the scale.
  """
  if precision == 'mixed' and runtime.IS_1_15:
    return tf.train.experimental.MixedPrecisionLossScaleOptimizer(
        optimizer, tf.train.experimental.DynamicLossScale())
  return optimizer


def check_precision(precision):
  """Raises UserError if this machine cannot compute in `precision`.

  Prints a warning if it computes slowly in it. Call `runtime.select_device`
  first.
  """
  if precision != 'mixed':
    return
  capabilities = _gpu_capabilities()
  needed, kind = (7, 'float16') if runtime.IS_1_15 else (8, 'bfloat16')
  if capabilities and min(capabilities) < needed:
    raise UserError(
        f'--precision=mixed on TensorFlow {runtime.VERSION} is {kind}, which '
        f'needs GPUs of compute capability {needed} or more, not '
        f'{min(capabilities):g}; use float32')
  if runtime.IS_1_15 and not capabilities:
    raise UserError(
        f'--precision=mixed on TensorFlow {runtime.VERSION} needs a GPU, and '
        'there is none; use float32, or TensorFlow 2.x')
  if not capabilities and not _cpu_has_bfloat16():
    log('warning: --precision=mixed is bfloat16, for which this CPU has no '
        'instructions (AVX512-BF16 or AMX); it can take ten times as long as '
        'float32')


def _cpu_has_bfloat16():
  """Whether the CPU computes in bfloat16; true where nothing tells."""
  try:
    with open(_CPU_FACTS) as file:
      words = set(file.read().split())
  except OSError:
    return True
  return bool(words & _BFLOAT16)


def _gpu_capabilities():
  """Compute capability of each GPU that TensorFlow sees, as floats."""
  descriptions = [
      device.physical_device_desc
      for device in device_lib.list_local_devices(runtime.session_config())
      if device.device_type == 'GPU']
  return [float(re.search(r'compute capability: (\d+\.\d+)', text).group(1))
          for text in descriptions]
