"""The watch over other tasks: what it reports, and when it gives up."""
import contextlib
import socket
import threading
import time

import pytest

from mentormix import messages
from mentormix.cluster import roles
from mentormix.cluster import watch as watch_lib


class Listener:
  """Answers at an address, while it is open."""

  def __init__(self):
    self._port = 0
    self.open()

  def open(self):
    self._server = socket.socket()
    self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    self._server.bind(('127.0.0.1', self._port))
    self._server.listen(1000)  # None is accepted: each look adds one.
    self._port = self._server.getsockname()[1]
    self.address = f'127.0.0.1:{self._port}'

  def close(self):
    self._server.close()


@pytest.fixture
def listener():
  with contextlib.closing(Listener()) as opened:
    yield opened


@pytest.fixture
def aborted(monkeypatch):
  """The messages with which the process would have ended."""
  lines = []
  monkeypatch.setattr(watch_lib, '_LOOK_SECS', 0.05)
  monkeypatch.setattr(watch_lib, '_PAUSE_SECS', 0.01)
  monkeypatch.setattr(watch_lib, '_SAY_AFTER_SECS', 0)
  monkeypatch.setattr(messages, 'abort', lines.append)
  return lines


def _until(condition):
  until = time.time() + 60
  while not condition():
    assert time.time() < until
    time.sleep(0.01)


@contextlib.contextmanager
def _watching(server, timeout, is_sync=False, job='worker', **jobs):
  """A `Watch` of task 0 of a job, beside a ps that is a `Listener`."""
  jobs = {'ps': (server.address,), 'worker': ('127.0.0.1:1',), **jobs}
  watch = watch_lib.Watch(roles.Cluster(jobs, job, 0), timeout, is_sync)
  yield watch
  watch.end()


def test_answers(listener):
  assert watch_lib.answers(listener.address)
  listener.close()
  assert not watch_lib.answers(listener.address)
  assert not watch_lib.answers('no.such.host.invalid:1')
  assert not watch_lib.answers('a..b:1')


def test_it_reports_who_does_not_answer_and_gives_up(listener, aborted, capsys):
  lines = []

  def said(text):
    lines.append(capsys.readouterr().out)
    return text in ''.join(lines)

  with _watching(listener, 1000) as watch:
    watch.wait(lambda: False)
    listener.close()
    _until(lambda: said(f'waiting for ps 0 at {listener.address}, 1000 sec'))
    listener.open()
    _until(lambda: said(f'ps 0 at {listener.address} answers'))
  assert not aborted
  listener.close()
  with _watching(listener, 0.3):
    _until(lambda: aborted)
  assert aborted[0].startswith(f'ps 0 at {listener.address} did not answer for '
                               '0.3 seconds (--cluster_timeout)')


def test_it_gives_up_without_steps_once_there_can_be_some(listener, aborted):
  with _watching(listener, 0.3) as watch:
    time.sleep(0.6)  # As a server, or a worker that still reads its data.
    assert not aborted
    watch.wait(lambda: False)
    _until(lambda: aborted)
  assert aborted[0].startswith('no step was finished for 0.3 seconds')


def test_a_synchronous_chief_names_the_worker_that_a_step_waits_for(
    listener, aborted, capsys, monkeypatch):
  monkeypatch.setattr(watch_lib, '_SAY_SECS', 0.1)
  with _watching(listener, 0.5, is_sync=True, job='chief',
                 chief=('127.0.0.1:3',),
                 worker=(listener.address, '127.0.0.1:2')) as watch:
    watch.wait(lambda: False)
    _until(lambda: aborted)
  missing = ', worker 1 at 127.0.0.1:2 does not answer'
  assert f'no step for 0 seconds{missing}\n' in capsys.readouterr().out
  assert aborted[0].startswith(
      f'no step was finished for 0.5 seconds{missing} (--cluster_timeout)')


def test_waiting_ends_with_an_answer_or_a_signal(listener, aborted):
  with _watching(listener, 0, ps=('127.0.0.1:1',)) as watch:
    watch.wait(lambda: True)  # Although nobody answers.
  listener.close()
  with _watching(listener, 0) as watch:
    waiting = threading.Thread(target=watch.wait, args=(lambda: False,))
    waiting.start()
    listener.open()
    waiting.join(60)
    assert not waiting.is_alive()
    listener.close()
    watch.wait_until_gone([listener.address], lambda: False)  # It has gone.
    listener.open()
    watch.wait_until_gone([listener.address], lambda: True)
  assert not aborted
