"""The one place that knows which TensorFlow this is; gives `tf` and `slim`.

    from mentormix.runtime import slim, tf

Everything else is written against `tensorflow.compat.v1` and tf-slim 1.1.0 as
they are on TensorFlow 1.15 (Python 3.7) and on TensorFlow 2.x alike. What
differs between the two, and what makes them quiet, stands here.
"""
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings

# Read when the native library loads, so they precede the import. They are
# defaults: what the environment already says stays.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # Warnings are not errors.
# Intel's wheel of 1.15: its threads wait for work 1 ms, not 200, and so leave
# the cores to TensorFlow's own threads, to the input, to other processes.
os.environ.setdefault('KMP_BLOCKTIME', '1')
# Where XLA is asked for, it may compile for a CPU, too.
os.environ.setdefault('TF_XLA_FLAGS', '--tf_xla_cpu_global_jit')
logging.getLogger('tensorflow').setLevel(logging.ERROR)
warnings.filterwarnings('ignore', module=r'tensorflow|tf_slim')


@contextlib.contextmanager
def _quiet_import():
  """Holds back what native code writes to stderr, unless the import fails.

  TensorFlow 2.x prints its oneDNN banner before it reads any log level, so only
  the file descriptor can silence it.
  """
  if os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0':
    yield
    return
  with tempfile.TemporaryFile() as held:
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
      # TensorFlow 1.15 defines numpy types in a way that numpy complains of.
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
    except BaseException:
      held.seek(0)
      os.write(stderr, held.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


@contextlib.contextmanager
def _uninterrupted():
  """Puts Ctrl-C off: native code that is being imported may swallow it."""
  if (threading.current_thread() is not threading.main_thread()
      or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
    yield
    return
  received = []
  signal.signal(signal.SIGINT, lambda *_: received.append(1))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  if received:
    raise KeyboardInterrupt


with _uninterrupted(), _quiet_import():
  # pylint: disable=g-import-not-at-top,g-direct-tensorflow-import
  import tensorflow.compat.v1 as tf
  from tensorflow.core.protobuf import rewriter_config_pb2
  from tensorflow.python.client import device_lib

# Deprecations are this file's concern, and what fails raises an exception.
tf.logging.set_verbosity(tf.logging.FATAL)
tf.disable_v2_behavior()
# With resource variables a read happens where the control dependencies say, so
# "the weights after the step" means that on both versions.
tf.enable_resource_variables()


def _restore_names_that_slim_expects():
  """Puts back the nine TensorFlow internals that tf-slim 1.1.0 looks up."""
  # pylint: disable=g-direct-tensorflow-import,g-import-not-at-top
  from tensorflow.python.framework import ops
  from tensorflow.python.ops import array_ops
  from tensorflow.python.ops import control_flow_ops
  from tensorflow.python.ops import variable_scope
  for module, names in (
      (ops, {'Tensor': tf.Tensor, 'IndexedSlices': tf.IndexedSlices}),
      (array_ops, {'stack': tf.stack, 'unstack': tf.unstack}),
      (control_flow_ops, {'Assert': tf.Assert, 'case': tf.case,
                          'cond': tf.cond, 'while_loop': tf.while_loop}),
      (variable_scope, {'variable': tf.Variable})):
    for name, value in names.items():
      if not hasattr(module, name):
        setattr(module, name, value)


_restore_names_that_slim_expects()
with _quiet_import():
  import tf_slim as slim  # pylint: disable=g-import-not-at-top

VERSION = tf.__version__
IS_1_15 = VERSION.startswith('1.')
_ON = rewriter_config_pb2.RewriterConfig.ON


def select_device(device_id):
  """Shows TensorFlow the GPUs named by `device_id` ('0', '0,1', '' for none).

  Call it before the first session.
  """
  os.environ['CUDA_VISIBLE_DEVICES'] = device_id


def session_config(precision='float32', xla=False):
  """Settings for a session, a tf.ConfigProto.

  No more GPU memory than needed; the graph rewrite of 1.15 for mixed precision;
  XLA for all of the graph but what `without_xla` leaves out.
  """
  config = tf.ConfigProto(allow_soft_placement=True)
  config.gpu_options.allow_growth = True
  if precision == 'mixed' and IS_1_15:
    config.graph_options.rewrite_options.auto_mixed_precision = _ON
  if xla:
    config.graph_options.optimizer_options.global_jit_level = (
        tf.OptimizerOptions.ON_1)
  return config


def without_xla():
  """A context for what XLA is to leave alone: it fails on strings."""
  return tf.xla.experimental.jit_scope(compile_ops=False)


def reason(error):
  """What an error says, in a line. In an OpError 2.x puts a stack before it."""
  lines = getattr(error, 'message', str(error)).splitlines() or ['']
  nodes = [k for k, line in enumerate(lines[:-1]) if line.startswith('Node: ')]
  return lines[nodes[-1] + 1 if nodes else 0]
