"""Command lines: strict flags, one-line errors, exit codes."""
import re
import subprocess
import sys
import textwrap

import pytest

_SCRIPT = '''
from typing import NamedTuple
from mentormix import command
from mentormix import messages
from mentormix.settings import Setting

class Config(NamedTuple):
  name: str
  size: int
  rate: float
  fast: bool
  maybe: str

def main():
  config = command.from_flags(Config)
  if config.name == 'slip':
    raise messages.UserError('--name=slip is\\n  not allowed')
  if config.name == 'failure':
    raise messages.RunError('the disk is full')
  if config.name == 'full':
    raise OSError(28, 'No space left on device', 'file')
  if config.name == 'interrupted':
    raise KeyboardInterrupt
  if config.name == 'stopped':
    return 143
  print(tuple(config))

command.define_flags([
    Setting('name', 'a', 'A name.'), Setting('size', 1, 'A size.'),
    Setting('rate', 0.5, 'A rate.'), Setting('fast', True, 'Fast?'),
    Setting('maybe', None, 'Or.')])
command.run(main)
'''


@pytest.fixture(scope='module')
def script(tmp_path_factory):
  path = tmp_path_factory.mktemp('script') / 'tool.py'
  path.write_text(textwrap.dedent(_SCRIPT))
  return str(path)


def _run(script, *args):
  code = 'import sys; sys.path[:0] = %r; sys.argv = %r; exec(open(%r).read())'
  process = subprocess.run(
      [sys.executable, '-c',
       code % (sys.path, ['tool.py'] + list(args), script)],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  return process.returncode, process.stdout, process.stderr


def test_types_come_from_the_defaults(script):
  assert _run(script) == (0, "('a', 1, 0.5, True, None)\n", '')
  args = ['--name=b', '--size=2', '--rate=1', '--nofast', '--maybe=c']
  assert _run(script, *args)[1] == "('b', 2, 1.0, False, 'c')\n"


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
def test_an_error_is_one_line(script, args, code, message):
  returned, out, err = _run(script, *args)
  assert returned == code
  assert not out
  assert message in err
  assert re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d tool.py: error: ', err)
  assert err.count('\n') == 1


def test_the_result_is_the_exit_code(script):
  assert _run(script, '--name=stopped')[0] == 143


def test_help_lists_the_flags(script):
  out = _run(script, '--help')[1]
  assert 'A size.' in out and '--rate' in out
