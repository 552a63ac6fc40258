"""TensorFlow of either version: its messages, its settings, how it loads."""
import os
import subprocess
import sys

import pytest

from mentormix import runtime
from mentormix import testing
from mentormix.runtime import tf


def _fail():
  raise ValueError('sorry')


@pytest.mark.parametrize('operation,said', [
    (lambda: tf.check_numerics(tf.log(-1.0), 'bad'), 'bad : Tensor had NaN'),
    (lambda: tf.py_func(_fail, [], tf.float32), 'ValueError: sorry'),
])
def test_the_reason_is_one_line(operation, said):
  with tf.Graph().as_default(), tf.Session() as session:
    failing = operation()
    with pytest.raises(tf.errors.OpError) as error:
      session.run(failing)
  reason = runtime.reason(error.value)
  assert reason.startswith(said) and '\n' not in reason


def test_other_errors_give_their_first_line():
  assert runtime.reason(ValueError('first\nsecond')) == 'first'
  assert runtime.reason(ValueError()) == ''


def test_without_tensorflow_a_command_says_what_to_install():
  program = ('import sys; sys.path.insert(0, sys.argv[1]); '
             'sys.modules["tensorflow"] = None; '
             'from mentormix import messages\n'
             'try: from mentormix import runtime\n'
             'except messages.UserError as error: print(error)')
  out = subprocess.check_output([sys.executable, '-c', program, testing.CODE])
  assert out.startswith(b'tensorflow is not installed; run scripts/setup_env')


@pytest.mark.parametrize('given,used', [(None, '1'), ('0', '0')])
def test_the_environment_decides_about_onednn(given, used):
  """It is on where the environment does not say otherwise."""
  program = ('import os, sys; sys.path.insert(0, sys.argv[1])\n'
             'from mentormix import runtime\n'
             'print(os.environ["TF_ENABLE_ONEDNN_OPTS"])')
  environment = {name: value for name, value in os.environ.items()
                 if name != 'TF_ENABLE_ONEDNN_OPTS'}
  if given:
    environment['TF_ENABLE_ONEDNN_OPTS'] = given
  out = subprocess.check_output([sys.executable, '-c', program, testing.CODE],
                                env=environment)
  assert out.decode().strip() == used


def test_ctrl_c_while_tensorflow_loads():
  """TensorFlow's native code does not swallow it."""
  program = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
  from mentormix import runtime
except KeyboardInterrupt:
  print('stopped')
"""
  out = subprocess.check_output([sys.executable, '-c', program, testing.CODE])
  assert out == b'stopped\n'
