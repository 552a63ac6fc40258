"""Signals that stop a process after its running step, or make it save."""
import signal

from mentormix import messages

_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Signals:
  """Notes SIGTERM, SIGHUP, Ctrl-C and SIGUSR1 for a loop that looks at them.

  A second signal that stops ends the process at once. If the reader of stdout
  goes (`| tee`, `| head`), that counts as SIGPIPE. The signal itself stays
  ignored, as Python has it, because it may be about any socket.

  Attributes:
    stopped_by: number of the signal that asked to stop, or None.
    save: whether SIGUSR1 has asked for a checkpoint; the loop resets it.
  """

  def __init__(self):
    self.stopped_by = None
    self.save = False
    self._previous = {}

  def install(self):
    """Notes signals from now on; a second call changes nothing."""
    for number in _STOP:
      # An ignored signal stays so: Ctrl-C in the background, SIGHUP in nohup.
      if (number not in self._previous
          and signal.getsignal(number) is not signal.SIG_IGN):
        self._previous[number] = signal.signal(number, self._stop)
    signal.signal(signal.SIGUSR1, self._ask_to_save)
    messages.on_closed(self._lose_reader)

  def restore(self):
    """Handles signals as before; call it after the last checkpoint."""
    self._restore_stop()
    messages.on_closed(None)
    # By default it would end the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

  def _restore_stop(self):
    while self._previous:
      signal.signal(*self._previous.popitem())

  def _stop(self, number, frame):
    del frame
    self.stopped_by = number
    self._restore_stop()

  def _lose_reader(self):
    self.stopped_by = self.stopped_by or signal.SIGPIPE

  def _ask_to_save(self, number, frame):
    del number, frame
    self.save = True
