"""Tests of finding and downloading archives."""
import errno
import functools
import hashlib
import http.server
import os
import threading

import numpy as np
import pytest

from mentormix.data import download as download_lib
from mentormix.messages import UserError

CONTENT = np.random.RandomState(0).bytes(300000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(name='server')
def fixture_server(monkeypatch):
  """A local web server; `answers` are (status, bytes), the last one repeats."""

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_GET(self):  # pylint: disable=invalid-name
      server.requests += 1
      status, body = server.answers[
          min(server.requests, len(server.answers)) - 1]
      self.send_response(status)
      self.send_header('Content-Length', str(len(CONTENT)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *unused_args):
      pass

  monkeypatch.setenv('no_proxy', '127.0.0.1')
  server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  server.requests, server.answers = 0, [(200, CONTENT)]
  server.url = f'http://127.0.0.1:{server.server_port}/file.tar.gz'
  thread = threading.Thread(target=functools.partial(
      server.serve_forever, poll_interval=0.01))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture(name='target')
def fixture_target(tmp_path):
  return str(tmp_path / 'file.tar.gz')


def download(server, target, md5=MD5):
  download_lib.download(server.url, target, md5, delays=(0, 0))


def check_downloaded(target):
  with open(target, 'rb') as stream:
    assert stream.read() == CONTENT
  assert os.listdir(os.path.dirname(target)) == ['file.tar.gz']


def test_download(server, target, capfd):
  download(server, target)
  check_downloaded(target)
  out, err = capfd.readouterr()  # No bar without a terminal.
  assert (out, err) == (f'Downloading {server.url} to {target}\n', '')
  mask = os.umask(0)
  os.umask(mask)
  assert os.stat(target).st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize('bad', [(200, CONTENT[:100000]), (503, b''),
                                 (429, b'')])
def test_download_tries_again(server, target, bad):
  server.answers = [bad, bad, (200, CONTENT)]
  download(server, target)
  check_downloaded(target)
  assert server.requests == 3


@pytest.mark.parametrize('answer, tries, words', [
    ((404, b''), 1, 'answers 404 Not Found'),
    ((503, b''), 3, 'answers 503 Service Unavailable'),
    ((200, CONTENT[:100000]), 3, '100000 bytes read'),
    ((200, CONTENT[::-1]), 1, 'has md5 .* instead of ' + MD5)])
def test_download_fails(server, target, answer, tries, words):
  server.answers = [answer]
  with pytest.raises(UserError, match=f'{words}.*--archive=FILE') as caught:
    download(server, target)
  assert server.url in str(caught.value) and '\n' not in str(caught.value)
  assert server.requests == tries
  assert not os.listdir(os.path.dirname(target))


def test_download_without_a_server(server, target):
  server.url = 'http://127.0.0.1:1/file.tar.gz'
  with pytest.raises(UserError, match=r'\(.*refused\); .*--archive=FILE'):
    download(server, target)
  assert not os.listdir(os.path.dirname(target))


def test_download_makes_its_directory(server, tmp_path):
  download(server, str(tmp_path / 'data' / 'file.tar.gz'))
  check_downloaded(str(tmp_path / 'data' / 'file.tar.gz'))


def test_download_on_a_full_disk(server, target, monkeypatch):
  def full(unused_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left.*file.tar.gz'):
    download(server, target)
  assert not os.listdir(os.path.dirname(target))


def test_missing_file_and_directory(tmp_path):
  for path in (tmp_path / 'none', tmp_path):
    with pytest.raises(UserError, match='--archive=.* cannot be read'):
      download_lib.locate('cifar10', str(path), None, str(tmp_path))
