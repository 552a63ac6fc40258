"""What the user reads: errors of one line, and log lines with the time.

A user's mistake (a flag, a file, a value) is a `UserError`: one line that names
it and says what to do. Any other exception is a bug and keeps its traceback.
"""
import contextlib
import os
import signal
import sys
import threading
import time

FAILED = 1  # Exit codes.
BAD_INPUT = 2
CLOSED = 128 + signal.SIGPIPE  # The reader of stdout has gone.

_on_closed = None  # See `on_closed`.


class UserError(Exception):
  """Bad input; the message is the one line that the user reads."""


class RunError(Exception):
  """A run cannot continue (disk full, NaN); one line, exit code 1."""


def on_closed(function):
  """Says what `log` calls once the reader of stdout has gone.

  Args:
    function: a callable that asks the command to end in order, from any thread;
      None for the BrokenPipeError, which ends it at once.
  """
  global _on_closed
  _on_closed = function


def log(line):
  """Prints a line with the time, and flushes it at once.

  If the reader has gone (`| head`), this and all later lines are lost.
  """
  try:
    print(_now(), line, flush=True)
  except BrokenPipeError:
    discard(sys.stdout)
    if _on_closed:
      _on_closed()
    elif threading.current_thread() is threading.main_thread():
      raise
    else:  # Nobody would see the error of another thread.
      os._exit(CLOSED)


def discard(stream):
  """Sends what a stream still holds, and what will be written, to nowhere.

  Otherwise the interpreter would complain when it flushes a closed pipe.
  """
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, stream.fileno())
  os.close(nowhere)


def abort(message):
  """Ends the process with an error line, whatever other threads wait for.

  Args:
    message: as of a `RunError`.
  """
  print_error(message)
  with contextlib.suppress(BrokenPipeError):
    sys.stdout.flush()
  os._exit(FAILED)


def print_error(message):
  """Prints a message as one line to stderr, with time and program name."""
  program = os.path.basename(sys.argv[0])
  line = ' '.join(str(message).split())
  write_error(f'{_now()} {program}: error: {line}\n')


def write_error(text):
  """Writes a text to stderr, unless its reader has gone."""
  try:
    sys.stderr.write(text)
    sys.stderr.flush()
  except BrokenPipeError:
    discard(sys.stderr)


def _now():
  return time.strftime('%Y-%m-%d %H:%M:%S')
