"""What the user reads: errors of one line, log lines with the time, exit codes.

A user's mistake (a flag, a file, a value) is a `UserError`: one line that names
it and says what to do. Any other exception is a bug and keeps its traceback.
"""
import os
import sys
import time

FAILED = 1
BAD_INPUT = 2


class UserError(Exception):
  """Bad input: the message is the one line that the user reads."""


class RunError(Exception):
  """A run that cannot go on (disk full, NaN): one line, exit code 1."""


def log(line):
  """Prints a line with the time before it, at once, also into a file."""
  print(_now(), line, flush=True)


def abort(message):
  """Ends the process with a line, from a thread, whatever the others wait for.

  Args:
    message: as of a `RunError`.
  """
  print_error(os.path.basename(sys.argv[0]), message)
  sys.stdout.flush()
  os._exit(FAILED)  # pylint: disable=protected-access


def _now():
  return time.strftime('%Y-%m-%d %H:%M:%S')


def print_error(program, message):
  line = ' '.join(str(message).split())
  sys.stderr.write('%s %s: error: %s\n' % (_now(), program, line))
  sys.stderr.flush()
