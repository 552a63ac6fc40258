"""Signals that stop a process after its running step."""
import signal


class StopSignals(object):
  """Notes the first of some signals; a second one ends the process at once.

  Attributes:
    received: its number, or None.
  """

  def __init__(self):
    self.received = None
    self._previous = {}

  def install(self, *numbers):
    """Notes these from now on."""
    for number in numbers:
      # What is ignored stays so: Ctrl-C for a background job, SIGHUP for nohup.
      if (number not in self._previous
          and signal.getsignal(number) is not signal.SIG_IGN):
        self._previous[number] = signal.signal(number, self._note)

  def _note(self, number, frame):
    del frame
    self.received = number
    self.restore()

  def restore(self):
    """Handles them again as before."""
    while self._previous:
      signal.signal(*self._previous.popitem())
