import os
import socket
import subprocess
import sys

import pytest

from mentormix import listening
from mentormix.command import UserError

LOOPBACK = bytes(10) + b'\xff\xff' + socket.inet_aton('127.0.0.1')

# A server of TensorFlow at argument 1, told to listen at argument 2 only.
PROGRAM = '''
import sys
from mentormix import listening
from mentormix.runtime import tf
port = int(sys.argv[1])
with listening.only_on(sys.argv[2], port):
  server = tf.train.Server({'ps': ['127.0.0.1:%d' % port]}, 'ps', 0)
print(sorted(a.hex() for a in listening.listening_at(port)))
with tf.Graph().as_default():
  with tf.Session(server.target) as session:
    print(session.run(tf.constant(40) + 2))
'''


def _free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


@pytest.mark.parametrize('address,where', [
    ('127.0.0.1', LOOPBACK), ('127.0.0.2', LOOPBACK[:-1] + b'\2'),
    ('::1', bytes(15) + b'\1'), ('0.0.0.0', bytes(16))])
def test_tensorflow_listens_at_the_address_that_is_named(address, where):
  if address == '::1' and not _has_ipv6():
    pytest.skip('this machine has no IPv6')
  out = subprocess.check_output(
      [sys.executable, '-c', PROGRAM, str(_free_port()), address],
      universal_newlines=True, env=dict(os.environ, PYTHONPATH=os.path.dirname(
          os.path.dirname(os.path.abspath(listening.__file__)))))
  assert out.splitlines() == [str([where.hex()]), '42']


def _has_ipv6():
  try:
    with socket.socket(socket.AF_INET6) as probe:
      probe.bind(('::1', 0))
    return True
  except OSError:
    return False


def test_what_listens_elsewhere_is_an_error():
  port = _free_port()
  with socket.socket() as server:
    with pytest.raises(UserError) as error:
      with listening.only_on('127.0.0.1', port):
        server.bind(('0.0.0.0', port))  # Python's own socket is left alone.
        server.listen(1)
  assert 'listen at 127.0.0.1, port %d, only' % port in str(error.value)
  assert '--bind_address=0.0.0.0 allows that' in str(error.value)


def test_addresses_that_cannot_be_listened_at():
  assert listening.resolve('127.0.0.1') == '127.0.0.1'
  assert [listening.is_loopback(host) for host in (
      '127.0.1.1', 'localhost', '192.0.2.77', 'no.such.host.invalid')] == [
          True, True, False, False]
  with pytest.raises(UserError, match='the host no.such.host.invalid is unkn'):
    listening.resolve('no.such.host.invalid')
  with socket.socket() as server:
    server.bind(('127.0.0.1', 0))
    server.listen(1)
    port = server.getsockname()[1]
    with pytest.raises(UserError, match='^it cannot be listened at, port %d: A'
                       % port):
      listening.check_free('127.0.0.1', port, 'it')
  listening.check_free('127.0.0.1', port, 'it')
  with pytest.raises(UserError, match='Cannot assign requested address'):
    listening.check_free('192.0.2.77', port, 'it')
