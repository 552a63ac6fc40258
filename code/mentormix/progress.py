"""How far a run is: a bar on a terminal, log lines elsewhere (nohup)."""
import sys
import time

from mentormix.messages import log

try:
  import tqdm
except ImportError:  # run_exported.py does not need it.
  tqdm = None

LOG_SECS = 30  # Between two log lines.
_BAR_SECS = 1  # Between two updates of a bar.


class Progress:
  """Shows steps with their figures, rate and remaining time.

  Call `show` after a step for which `is_due`. The run goes from step `start` to
  step `end`.
  """

  def __init__(self, start, end, unit='step'):
    self._start, self._end, self._unit = start, end, unit
    self._begun = time.time()
    self._shown, self._shown_at = None, start
    self._bar = None
    if tqdm and sys.stdout.isatty():
      self._bar = tqdm.tqdm(total=end, initial=start, unit=unit,
                            file=sys.stdout, dynamic_ncols=True)

  def is_due(self):
    """Whether a step should be shown now; the first one always is."""
    interval = _BAR_SECS if self._bar else LOG_SECS
    return self._shown is None or time.time() - self._shown >= interval

  def show(self, done, **figures):
    """Shows that `done` steps are done.

    Args:
      done: an int.
      **figures: name -> text.
    """
    now = time.time()
    since = self._begun if self._shown is None else self._shown
    rate = (done - self._shown_at) / max(now - since, 1e-9)
    if self._bar is not None:
      self._bar.set_postfix(figures, refresh=False)
      self._bar.update(done - self._bar.n)
    else:
      # A worker may see its first step before the step counts.
      mean = max(done - self._start, 1) / max(now - self._begun, 1e-9)
      words = '  '.join(f'{name} {text}' for name, text in figures.items())
      log(f'{self._unit} {done}/{self._end} ({done / self._end:.1%})  {words}  '
          f'{rate:.3g} {self._unit}/s  '
          f'{_duration(max(self._end - done, 0) / mean)} left')
    self._shown, self._shown_at = now, done

  def close(self, done=None):
    """Ends the bar, at `done` steps if that is given."""
    if self._bar is not None:
      if done is not None:
        self._bar.update(done - self._bar.n)
      self._bar.close()


def _duration(seconds):
  hours, rest = divmod(int(round(seconds)), 3600)
  return f'{hours}:{rest // 60:02d}:{rest % 60:02d}'
