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
  """A local web server; it gives `server.answer`, (status, bytes)."""

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_GET(self):
      status, body = server.answer
      self.send_response(status)
      self.send_header('Content-Length', str(len(CONTENT)))
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *unused_args):
      pass

  monkeypatch.setenv('no_proxy', '127.0.0.1')
  server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  server.answer = 200, CONTENT
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


def download(server, target):
  download_lib.download(server.url, target, MD5)


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


@pytest.mark.parametrize('answer, words', [
    ((404, b''), '404 Client Error: Not Found'),
    ((503, b''), '503 Server Error'),
    ((200, CONTENT[:100000]), '100000 bytes read'),
    ((200, CONTENT[::-1]), 'has md5 .* instead of ' + MD5)])
def test_download_fails(server, target, answer, words):
  server.answer = answer
  with pytest.raises(UserError, match=f'{words}.*--archive=FILE') as caught:
    download(server, target)
  assert server.url in str(caught.value) and '\n' not in str(caught.value)
  assert not os.listdir(os.path.dirname(target))


def test_download_without_a_server(server, target):
  server.url = 'http://127.0.0.1:1/file.tar.gz'
  with pytest.raises(UserError, match=r'\(.*refused.*\); .*--archive=FILE'):
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
