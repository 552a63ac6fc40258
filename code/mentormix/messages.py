"""What the user reads: errors of one line, and log lines with the time.

A user's mistake (a flag, a file, a value) is a `UserError`: one line that names
it and says what to do. Any other exception is a bug and keeps its traceback.
"""
import os
import sys
import time

FAILED = 1  # Exit codes.
BAD_INPUT = 2


class UserError(Exception):
  """Bad input; the message is the one line that the user reads."""


class RunError(Exception):
  """A run cannot continue (disk full, NaN); one line, exit code 1."""


def log(line):
  """Prints a line with the time, and flushes it at once."""
  print(_now(), line, flush=True)


def abort(message):
  """Ends the process with an error line, whatever other threads wait for.

  Args:
    message: as of a `RunError`.
  """
  print_error(message)
  sys.stdout.flush()
  os._exit(FAILED)


def print_error(message):
  """Prints a message as one line to stderr, with time and program name."""
  program = os.path.basename(sys.argv[0])
  line = ' '.join(str(message).split())
  sys.stderr.write(f'{_now()} {program}: error: {line}\n')
  sys.stderr.flush()


def _now():
  return time.strftime('%Y-%m-%d %H:%M:%S')
