"""Watches the other tasks of a cluster, and reports which ones are missing."""
import socket
import threading
import time

from mentormix import messages
from mentormix.messages import log

_CONNECT_SECS = 2  # How long to wait for a connection.
_LOOK_SECS = 2  # Between two looks at the other tasks.
_PAUSE_SECS = 0.5  # Between two looks while there is nothing else to do.
_SAY_AFTER_SECS = 5  # Shorter absences are not reported.
_SAY_SECS = 60  # Between two lines while a task stays out of reach.


def split(address):
  """(host, port) of host:port, without the brackets of IPv6."""
  host, _, port = address.rpartition(':')
  return host.strip('[]'), int(port)


def answers(address):
  """Whether somebody listens at host:port."""
  try:
    socket.create_connection(split(address), timeout=_CONNECT_SECS).close()
    return True
  except (OSError, UnicodeError):  # UnicodeError: a host such as a..b.
    return False


class Watch:
  """Watches, in a thread, the tasks that this one needs.

  TensorFlow waits forever, in silence, for a server that is gone. This class
  reports which task does not answer. It ends the process when that lasts
  `timeout` seconds, or when no step is finished for as long after `wait`; 0
  waits forever. `is_sync` says that a step takes every worker.
  """

  def __init__(self, cluster, timeout, is_sync=False):
    self._needed = cluster.needed()
    # Only the chief reports which workers are missing.
    self._helpers = cluster.helpers() if is_sync and cluster.is_chief else {}
    self._timeout = timeout
    self._lost = {}  # Name -> since when it does not answer.
    self._said = {}  # Name -> when that was last reported.
    self._said_helpers = 0  # When they were last reported.
    self._stepped = None  # When the last step ended, once there can be steps.
    self._ended = threading.Event()
    threading.Thread(target=self._run, daemon=True).start()

  def _run(self):
    while not self._ended.wait(_LOOK_SECS):
      self._look()
      if self._timeout and not self._ended.is_set():
        self._check_patience(time.monotonic())

  def _look(self):
    """Notes which tasks answer; reports changes."""
    for name, address in self._needed.items():
      now = time.monotonic()
      if answers(address):
        if name in self._said:
          log(f'{name} at {address} answers')
        self._lost.pop(name, None)
        self._said.pop(name, None)
        continue
      absence = now - self._lost.setdefault(name, now)
      if (absence >= _SAY_AFTER_SECS
          and now - self._said.get(name, -float('inf')) >= _SAY_SECS):
        self._said[name] = now
        limit = (f', {int(self._timeout - absence)} seconds at most'
                 if self._timeout else '')
        log(f'waiting for {name} at {address}{limit}')

    stepped, now = self._stepped, time.monotonic()
    if stepped and _SAY_SECS <= now - max(stepped, self._said_helpers):
      absent = self._absent_helpers()
      if absent:
        self._said_helpers = now
        log(f'no step for {int(now - stepped)} seconds{absent}')

  def _absent_helpers(self):
    """Part of a line: the workers that do not answer, if any."""
    return ''.join(f', {name} at {address} does not answer'
                   for name, address in self._helpers.items()
                   if not answers(address))

  def _check_patience(self, now):
    """Ends the process if a task or a step is missing for too long."""
    lost = sorted(name for name, since in self._lost.items()
                  if now - since >= self._timeout)
    if self._lost and self._stepped:
      self._stepped = now  # Steps get their full time once all answer again.
    if lost:
      why = ' and '.join(f'{name} at {self._needed[name]}' for name in lost)
      why += f' did not answer for {self._timeout} seconds'
    elif self._stepped and now - self._stepped >= self._timeout:
      why = (f'no step was finished for {self._timeout} seconds'
             f'{self._absent_helpers()}')
    else:
      return
    messages.abort(f'{why} (--cluster_timeout); start what is missing, then '
                   'rerun the same command to resume from the last checkpoint')

  def stepped(self):
    """Must be called after every step."""
    self._stepped = time.monotonic()

  def wait(self, is_stopped):
    """Returns once every needed task has answered, or `is_stopped()`."""
    missing = list(self._needed.values())
    while missing and not is_stopped():
      missing = [address for address in missing if not answers(address)]
      if missing:
        time.sleep(_PAUSE_SECS)
    self.stepped()

  def wait_until_gone(self, addresses, is_stopped):
    """Returns when nobody listens there, after the timeout or a signal."""
    until = time.monotonic() + (self._timeout or float('inf'))
    while any(map(answers, addresses)) and not is_stopped():
      self.stepped()  # No step is due any more.
      if time.monotonic() >= until:
        log(f'a worker did not end within {self._timeout} seconds; ending '
            'without it')
        return
      time.sleep(_PAUSE_SECS)

  def end(self):
    """Stops watching."""
    self._ended.set()
