"""Hides which TensorFlow is installed; provides `tf`, `slim`, `slim_nets`.

    from mentormix.runtime import slim, tf

All other code uses the parts of `tensorflow.compat.v1` and tf-slim 1.1.0 that
are the same on TensorFlow 1.15 (Python 3.7) and on TensorFlow 2.x. This module
handles what differs between the two, and keeps both quiet.
"""
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings

from mentormix.messages import UserError

# The native library reads these when it loads, so they come before the import.
# They are defaults: what the environment already sets stays.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # Warnings are not errors.
# Intel's wheel of 1.15: its threads wait for work for 1 ms instead of 200. This
# leaves the cores to TensorFlow's own threads, the input and other processes.
os.environ.setdefault('KMP_BLOCKTIME', '1')
# TensorFlow 2.x uses oneDNN by itself only on newer CPUs. On one with AVX2 but
# no AVX512, a step takes 1.6 to 1.8 times as long without it.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
# If XLA is requested, it may compile for a CPU, too.
os.environ.setdefault('TF_XLA_FLAGS', '--tf_xla_cpu_global_jit')
logging.getLogger('tensorflow').setLevel(logging.ERROR)
warnings.filterwarnings('ignore', module=r'tensorflow|tf_slim')


@contextlib.contextmanager
def _quiet_import():
  """Holds back what native code writes to stderr, unless the import fails.

  TensorFlow 2.x prints its oneDNN banner before it reads any log level, so the
  file descriptor itself has to be redirected.
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
  """Delays Ctrl-C: native code that is being imported may swallow it."""
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


try:
  with _uninterrupted(), _quiet_import():
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf import rewriter_config_pb2
    from tensorflow.python.client import device_lib
except ModuleNotFoundError as error:
  raise UserError(f"{error.name.split('.')[0]} is not installed; run "
                  "scripts/setup_env.sh, or pip install '.[tf2]'")

# This file deals with deprecations, and failures raise an exception.
tf.logging.set_verbosity(tf.logging.FATAL)
tf.disable_v2_behavior()
# Resource variables are read where the control dependencies say, so that "the
# weights after the step" means the same on both versions.
tf.enable_resource_variables()


def _restore_names_that_slim_expects():
  """Restores the nine TensorFlow internals that tf-slim 1.1.0 looks up."""
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
  import tf_slim as slim
  from tf_slim import nets as slim_nets

VERSION = tf.__version__
IS_1_15 = VERSION.startswith('1.')
_ON = rewriter_config_pb2.RewriterConfig.ON


def select_device(device_id):
  """Before the first session, selects GPUs ('0', '0,1', '' for none)."""
  os.environ['CUDA_VISIBLE_DEVICES'] = device_id


def session_config(precision='float32', xla=False):
  """Settings for a session, a tf.ConfigProto.

  It takes no more GPU memory than needed, applies the graph rewrite of 1.15 for
  mixed precision, and compiles all of the graph by XLA except what was built in
  `without_xla`.
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
  """A context for operations that XLA must not compile: it fails on strings."""
  return tf.xla.experimental.jit_scope(compile_ops=False)


def reason(error):
  """The message of an error in one line, without the stack that 2.x adds."""
  lines = getattr(error, 'message', str(error)).splitlines() or ['']
  nodes = [k for k, line in enumerate(lines[:-1]) if line.startswith('Node: ')]
  return lines[nodes[-1] + 1 if nodes else 0]
