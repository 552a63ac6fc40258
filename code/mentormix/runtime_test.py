"""What TensorFlow says when an operation fails, on either version."""
import collections
import os
import subprocess
import sys

import pytest

from mentormix.messages import UserError
from mentormix import precision
from mentormix import runtime
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


@pytest.mark.parametrize('is_1_15,gpus,fits', [
    (True, [7.0], True), (True, [7.5, 7.0], True), (True, [6.1], False),
    (True, [], False), (False, [8.0], True), (False, [9.0, 7.0], False),
    (False, [], True)])
def test_which_machine_has_mixed_precision(monkeypatch, is_1_15, gpus, fits):
  monkeypatch.setattr(runtime, 'IS_1_15', is_1_15)
  monkeypatch.setattr(precision, '_gpu_capabilities', lambda: gpus)
  monkeypatch.setattr(precision, '_cpu_has_bfloat16', lambda: True)
  precision.check_precision('float32')
  if fits:
    assert precision.check_precision('mixed') is None
  else:
    with pytest.raises(UserError, match='--precision=mixed .*take float32'):
      precision.check_precision('mixed')


def test_a_slow_machine_is_told_so(monkeypatch):
  monkeypatch.setattr(runtime, 'IS_1_15', False)
  monkeypatch.setattr(precision, '_gpu_capabilities', lambda: [])
  monkeypatch.setattr(precision, '_cpu_has_bfloat16', lambda: False)
  assert 'has no bfloat16' in precision.check_precision('mixed')


def test_gpus_are_told_by_their_description(monkeypatch):
  device = collections.namedtuple('Device', 'device_type physical_device_desc')
  monkeypatch.setattr(runtime.device_lib, 'list_local_devices', lambda config: [
      device('CPU', ''), device('XLA_GPU', 'device: XLA_GPU device'),
      device('GPU', 'device: 0, name: Tesla V100-SXM2-16GB, pci bus id: '
                    '0000:00:1e.0, compute capability: 7.0')])
  assert precision._gpu_capabilities() == [7.0]


def test_ctrl_c_while_tensorflow_loads():
  """Its native code is not given the chance to swallow it."""
  code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  process = subprocess.Popen(
      [sys.executable, '-c', """
import os, signal, sys, threading
sys.path.insert(0, %r)
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
  from mentormix import runtime
except KeyboardInterrupt:
  print('stopped')
""" % code], stdout=subprocess.PIPE)
  assert process.communicate()[0] == b'stopped\n'
