"""The fuzzer finds what fails, and the parsers pass a short run of it."""
import os
import random
import subprocess
import sys

import pytest

import fuzz

CODE = os.path.dirname(os.path.abspath(__file__))

# One parser for each way to fail, and one that has none.
BROKEN = """
import os, sys, time
import fuzz
from mentormix.command import UserError

fuzz._SECONDS = 0.2
good = b'good'

def way(data):
  return None if data == good else sys.argv[2]

def refuse(error):
  raise UserError(error)

def swallow(function):
  try:
    function()
  except Exception as error:
    raise UserError('cannot be read')

def parse(data, directory):
  {None: lambda: None,
   'error': lambda: refuse('cannot be read'),
   'exception': lambda: [][0],
   'memory': lambda: swallow(lambda: bytes(3 << 30)),
   'line': lambda: refuse('x' * 10000),
   'slow': lambda: swallow(lambda: [x for x in iter(int, 1)][0:0]),
   'abort': os.abort}[way(data)]()

def spin(data, directory):
  if way(data):
    while True:
      pass

fuzz.PARSERS['mine'] = fuzz.Parser(
    lambda: [good], lambda random, corpus: b'bad',
    spin if sys.argv[2] == 'slow' else parse)
counts = [0] * 4
os.makedirs(os.path.join(sys.argv[1], 'd'))
fuzz.work('mine', 7, 2, os.path.join(sys.argv[1], 'd'), counts)
print(counts)
"""


def _run_broken(way, directory):
  process = subprocess.Popen(
      [sys.executable, '-c', BROKEN, str(directory), way], cwd=CODE,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  out, _ = process.communicate(timeout=300)
  return process.returncode, out.strip()


@pytest.mark.parametrize('way,expected', [
    ('error', [2, 2, 0, 0]), ('exception', [2, 0, 0, 2]),
    ('memory', [2, 0, 0, 2]), ('line', [2, 0, 0, 2]), ('slow', [2, 0, 0, 2])])
def test_a_parser_that_fails_is_found(way, expected, tmp_path):
  assert _run_broken(way, tmp_path) == (0, str(expected))
  kept = sorted(set(os.listdir(str(tmp_path))) - {'d'})
  if not expected[3]:
    assert not kept
    return
  assert kept == ['mine-7-0', 'mine-7-0.txt', 'mine-7-1', 'mine-7-1.txt']
  assert (tmp_path / 'mine-7-0').read_bytes() == b'bad'
  words = {'exception': 'IndexError', 'memory': 'out of memory',
           'line': 'a line without end', 'slow': 'more than'}
  assert words[way] in (tmp_path / 'mine-7-0.txt').read_text()


def test_the_input_that_ends_the_process_is_there(tmp_path):
  code, _ = _run_broken('abort', tmp_path)
  assert code not in (0, 1)
  assert (tmp_path / 'd' / 'current').read_bytes() == b'bad'


@pytest.mark.parametrize('name', list(fuzz.PARSERS))
def test_a_short_run(name, tmp_path):
  wanted = 4 if name == 'records' else 30  # Which starts TensorFlow for each.
  inputs, errors, results, failures = fuzz.fuzz(name, wanted, 1, str(tmp_path))
  assert (inputs, failures) == (wanted, 0) and errors + results == wanted
  assert not os.listdir(str(tmp_path))


@pytest.mark.parametrize('name', ['pickles', 'labels', 'images', 'settings',
                                  'lists'])
def test_a_seed_gives_the_same_inputs(name):
  parser = fuzz.PARSERS[name]
  corpus = parser.corpus()
  made = lambda seed: [parser.mutate(random.Random('%d %d' % (seed, n)), corpus)
                       for n in range(20)]
  assert made(0) == made(0) != made(1)
  assert sum(data in corpus for data in made(0)) < 10


def test_bad_flags(tmp_path):
  for flags, words in (
      (['--output_dir='], '--output_dir'),
      (['--output_dir=%s' % tmp_path, '--parsers=x'], 'known are pickles'),
      (['--output_dir=%s' % tmp_path, '--inputs=0'], '--inputs')):
    process = subprocess.Popen(
        [sys.executable, os.path.join(CODE, 'fuzz.py')] + flags,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2 and words in error
    assert 'Traceback' not in error
