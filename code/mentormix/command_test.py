"""Command lines: strict flags, one-line errors, exit codes."""
import glob
import os
import re
import subprocess
import sys
import types
import typing

import pytest

from mentormix import command
from mentormix import messages
from mentormix import testing
from mentormix.settings import Setting

# Of every command; those for developers are in tools/.
SCRIPTS = sorted(
    path for path in glob.glob(os.path.join(testing.CODE, '*.py')) + glob.glob(
        os.path.join(testing.CODE, 'tools', '*.py'))
    if 'command.run(' in open(path, encoding='utf-8').read())
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
      __file__='tool.py', cli=lambda: command.run(
          lambda: command.define_settings(SETTINGS), _main)), *args)


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


@pytest.mark.parametrize('environment,argument,code,message', [
    ('LC_ALL=C', 'ä'.encode(), 0, ''),
    ('LC_ALL=POSIX', 'ä'.encode(), 0, ''),
    ('PYTHONIOENCODING=ascii', 'ä'.encode(), 0, ''),
    ('LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0', 'ä'.encode(), 2,
     r"'--name=\\udcc3\\udca4' cannot .* is (us-)?ascii; set LC_ALL=C.UTF-8$"),
    ('LC_ALL=C', b'\xff', 2, r"'--name=\\udcff' is not valid UTF-8; rename")])
def test_paths_of_any_locale(environment, argument, code, message):
  program = (
      'import sys; sys.path.insert(0, sys.argv.pop(1))\n'
      'from absl import flags\nfrom mentormix import command\n'
      'command.run(lambda: flags.DEFINE_string("name", "", ""), '
      'lambda: print(flags.FLAGS.name))')
  environment = dict(pair.split('=') for pair in environment.split())
  finished = subprocess.run(
      [sys.executable, '-c', program, testing.CODE, b'--name=' + argument],
      env=dict(os.environ, **environment), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, universal_newlines=True)
  assert finished.returncode == code, finished.stderr
  assert finished.stderr.count('\n') == (code != 0)
  assert re.search(message, finished.stderr)


def test_help_explains_the_command_and_lists_its_flags():
  """Also where another module is the main one, as for an installed command."""
  out = _run('--help').out
  assert out.startswith(__doc__)
  assert 'A size.' in out and '--rate' in out


def _write_to_a_closed_pipe(*args):
  """(exit code, stderr) of a command whose reader has gone before it writes."""
  reader, writer = os.pipe()
  os.close(reader)
  process = subprocess.Popen([sys.executable, *args], stdout=writer,
                             stderr=subprocess.PIPE, universal_newlines=True)
  os.close(writer)
  return process.communicate()[1], process.returncode


@pytest.mark.parametrize('path', SCRIPTS, ids=os.path.basename)
def test_a_reader_that_has_gone_is_not_an_error(path):
  """As in `--help | head -3`."""
  assert _write_to_a_closed_pipe(path, '--help') == ('', 141)


def test_a_closed_pipe_ends_a_command_quietly():
  """Also one that writes often, from a thread, or to stderr."""
  program = (
      'import os, sys, threading; sys.path.insert(0, sys.argv.pop())\n'
      'from mentormix import command, messages\n'
      'def main():\n  messages.log("x"); open("/dev/full", "w").write("x")\n'
      'def thread():\n'
      '  t = threading.Thread(target=main); t.start(); t.join()\n'
      'def slip():\n  os.dup2(1, 2); raise messages.UserError("x")\n'
      'command.run(lambda: None, globals()[sys.argv.pop()])')
  for name, code in (('main', 141), ('thread', 141), ('slip', 2)):
    assert _write_to_a_closed_pipe(
        '-c', program, name, testing.CODE) == ('', code)


def test_closed_standard_streams_lead_nowhere():
  finished = subprocess.run(
      f'"{sys.executable}" "{SCRIPTS[0]}" --nmae >&- 2>&- <&-', shell=True)
  assert finished.returncode == 2
