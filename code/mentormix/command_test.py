"""Command lines: strict flags, one-line errors, exit codes."""
import re
import types
import typing

import pytest

from mentormix import command
from mentormix import messages
from mentormix import testing
from mentormix.settings import Setting

SETTINGS = [
    Setting('name', 'a', 'A name.'), Setting('size', 1, 'A size.'),
    Setting('rate', 0.5, 'A rate.'), Setting('fast', True, 'Fast?'),
    Setting('maybe', None, 'Or.')]
FAILURES = {
    'slip': messages.UserError('--name=slip is\n  not allowed'),
    'failure': messages.RunError('the disk is full'),
    'full': OSError(28, 'No space left on device', 'file'),
    'interrupted': KeyboardInterrupt()}


class Config(typing.NamedTuple):
  """What the command takes."""
  name: str
  size: int
  rate: float
  fast: bool
  maybe: str


def _main():
  config = command.from_flags(Config)
  if config.name in FAILURES:
    raise FAILURES[config.name]
  if config.name == 'stopped':
    return 143
  print(tuple(config))
  return 0


def _run(*args):
  """(exit code, stdout, stderr)."""
  return testing.run_command(types.SimpleNamespace(
      __file__='tool.py', main=_main,
      define_flags=lambda: command.define_settings(SETTINGS)), *args)


def test_types_come_from_the_defaults():
  assert _run() == (0, "('a', 1, 0.5, True, None)\n", '')
  args = ['--name=b', '--size=2', '--rate=1', '--nofast', '--maybe=c']
  assert _run(*args).out == "('b', 2, 1.0, False, 'c')\n"


@pytest.mark.parametrize('args,code,message', [
    (['--nmae=b'], 2, "Unknown command line flag 'nmae'. Did you mean: name"),
    (['--size=two'], 2, '--size=two'),
    (['--size=1.5'], 2, '--size=1.5'),
    (['--fast=perhaps'], 2, '--fast=perhaps'),
    (['extra'], 2, "unexpected argument 'extra'"),
    (['--name=slip'], 2, '--name=slip is not allowed'),
    (['--name=failure'], 1, 'the disk is full'),
    (['--name=full'], 1, 'No space left on device'),
    (['--name=interrupted'], 130, 'stopped by Ctrl-C'),
])
def test_an_error_is_one_line(args, code, message):
  finished = _run(*args)
  testing.assert_one_line(finished, code, message)
  assert not finished.out
  assert re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d tool.py: error: ',
                  finished.err)


def test_the_result_is_the_exit_code():
  assert _run('--name=stopped').code == 143


def test_help_lists_the_flags():
  out = _run('--help').out
  assert 'A size.' in out and '--rate' in out
