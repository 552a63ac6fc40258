"""Mixed precision: its types, its loss scaling, and the devices that have it."""
import re

from mentormix.messages import UserError
from mentormix import runtime
from mentormix.runtime import device_lib
from mentormix.runtime import tf


def arithmetic(precision):
  """The dtype of the arithmetic that a student is built with.

  Mixed precision is bfloat16 on TensorFlow 2.x, which has the range of float32,
  so nothing need be scaled. On 1.15 it is float16, which TensorFlow's graph
  rewrite puts into a graph of float32, with `scale_loss`.

  Args:
    precision: as of --precision.
  """
  if precision == 'mixed' and not runtime.IS_1_15:
    return tf.bfloat16
  return tf.float32


def scale_loss(optimizer, precision):
  """`optimizer`, with dynamic loss scaling where `precision` needs it.

  Gradients too small for float16 are scaled up; a step whose gradients overflow
  leaves the weights as they are, and the scale is halved.
  """
  if precision == 'mixed' and runtime.IS_1_15:
    return tf.train.experimental.MixedPrecisionLossScaleOptimizer(
        optimizer, tf.train.experimental.DynamicLossScale())
  return optimizer


def check_precision(precision):
  """Whether this machine computes in `precision`.

  Call `select_device` before.

  Returns:
    A line for the log where it can, but slowly; None otherwise.

  Raises:
    UserError: it cannot.
  """
  if precision != 'mixed':
    return None
  capabilities = _gpu_capabilities()
  needed, kind = (7, 'float16') if runtime.IS_1_15 else (8, 'bfloat16')
  if capabilities and min(capabilities) < needed:
    raise UserError('--precision=mixed on TensorFlow %s is %s, which needs GPUs '
                    'of compute capability %d or more, not %g; take float32'
                    % (runtime.VERSION, kind, needed, min(capabilities)))
  if runtime.IS_1_15 and not capabilities:
    raise UserError('--precision=mixed on TensorFlow %s needs a GPU, and there '
                    'is none; take float32, or TensorFlow 2.x' % runtime.VERSION)
  if not capabilities and not _cpu_has_bfloat16():
    return ('--precision=mixed: this CPU has no bfloat16 arithmetic '
            '(AMX or AVX512-BF16), float32 may be faster')
  return None


def _gpu_capabilities():
  """Compute capability of each GPU that TensorFlow sees, as floats."""
  descriptions = [
      device.physical_device_desc
      for device in device_lib.list_local_devices(runtime.session_config())
      if device.device_type == 'GPU']
  return [float(re.search(r'compute capability: (\d+\.\d+)', text).group(1))
          for text in descriptions]


def _cpu_has_bfloat16():
  try:
    with open('/proc/cpuinfo') as f:
      return bool(re.search(r'\b(amx_bf16|avx512_bf16)\b', f.read()))
  except OSError:  # No Linux.
    return False
