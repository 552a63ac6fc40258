"""The one place that knows which TensorFlow this is; gives `tf` and `slim`.

    from mentormix.runtime import slim, tf

Everything else is written against `tensorflow.compat.v1` and tf-slim 1.1.0 as
they are on TensorFlow 1.15 (Python 3.7) and on TensorFlow 2.x alike. What
differs between the two, and what makes them quiet, stands here.
"""
import contextlib
import logging
import os
import sys
import tempfile
import warnings

# Read when the native library loads, so they precede the import. They are
# defaults: what the environment already says stays.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # Warnings are not errors.
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


with _quiet_import():
  import tensorflow.compat.v1 as tf  # pylint: disable=g-import-not-at-top

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


def select_device(device_id):
  """Shows TensorFlow the GPUs named by `device_id` ('0', '0,1', '' for none).

  Call it before the first session.
  """
  os.environ['CUDA_VISIBLE_DEVICES'] = device_id


def session_config():
  """Session settings for every session: no more GPU memory than needed."""
  config = tf.ConfigProto(allow_soft_placement=True)
  config.gpu_options.allow_growth = True
  return config


def reason(error):
  """What a tf.errors.OpError says, in a line; 2.x puts a stack before it."""
  lines = getattr(error, 'message', str(error)).splitlines() or ['']
  nodes = [k for k, line in enumerate(lines[:-1]) if line.startswith('Node: ')]
  return lines[nodes[-1] + 1 if nodes else 0]
