"""The benchmark: its figures by hand, its rows, its processes."""
import functools
import json
import os
import stat
import sys

import numpy as np
import pytest

import benchmark
from mentormix import config as config_lib
from mentormix import testing
from mentormix.command import RunError
from mentormix.command import UserError

SCRIPT = os.path.abspath(benchmark.__file__)

# Speaks to the command as a Python with a TensorFlow would. Sample n of a row
# takes n times as long as the first one.
FAKE = '''#!%s
import json, sys
me = sys.argv[0].rpartition('/')[2]
def reply(**message):
  print(json.dumps(message), flush=True)
job = json.loads(sys.stdin.readline())
kind, config = job['kind'], job['config']
facts = dict(tensorflow=me, python_version='3')
rows = {}
if kind == 'check':
  facts['refused'] = {p: 'no mixed here' for p in job['precisions']
                      if p == 'mixed' and me == 'old'}
elif kind == 'memory':
  facts['peak_memory_mib'] = 300
elif kind == 'input':
  for threads in ('1 thread', '2 threads', '4 threads'):
    rows['ours, ' + threads] = 0.001
    rows['published, ' + threads] = 0.005
else:
  facts['operations'] = {'floor': 3e9}
  rows['floor'] = 0.1
  rows['step'] = 0.104 if config['precision'] == 'float32' else 0.052
  rows['step + input'] = 1.1 * rows['step']
  rows['step + input + summaries'] = 1.2 * rows['step']
  if config['precision'] == 'float32':
    rows['published step + input'] = 0.2
reply(rows=list(rows), facts=facts)
done = {}
for line in sys.stdin:
  turn = json.loads(line)
  name, seconds = turn['row'], []
  with open('turns', 'a') as f:
    f.write('%%s %%s %%s\\n' %% (me, name, turn['samples']))
  for _ in range(turn['samples']):
    done[name] = done.get(name, 0) + 1
    seconds.append(done[name] * rows[name])
  reply(seconds=[seconds, [2 * s for s in seconds]])
'''

_run = functools.partial(testing.run, SCRIPT)


def _program(path, text):
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Settings on 40 examples in two files."""
  directory = tmp_path_factory.mktemp('data')
  random = np.random.RandomState(0)
  for shard in range(2):
    testing.write_records(
        directory / ('cifar10_train-%d' % shard),
        random.randint(256, size=[20, 32, 32, 3]), [n % 10 for n in range(20)],
        [(n + n // 9) % 10 for n in range(20)])
  return config_lib.TrainConfig(
      dataset_name='cifar10', data_dir=str(directory), batch_size=4,
      studentnet='resnet8_thin', trained_mentornet_dir='threshold',
      train_log_dir='unused')


def test_figures_of_processes_that_take_turns(tmp_path):
  for name in ('new', 'old'):
    _program(tmp_path / name, FAKE % sys.executable)
  (tmp_path / 'out').mkdir()
  code, out, err = _run(
      tmp_path, '--data_dir=data', '--pythons=./old,./new', '--repeats=5',
      '--precisions=float32,mixed', '--output=out/speed.json')
  assert code == 0, err
  assert os.listdir(str(tmp_path / 'out')) == ['speed.json']
  with open(str(tmp_path / 'out' / 'speed.json')) as f:
    figures = json.load(f)
  assert figures['facts']['cores'] >= 1
  assert '--repeats=5' in figures['facts']['command']
  assert figures['refused'] == ['no mixed here (./old)']

  found = [c['facts'] for c in figures['configurations']]
  assert [(f['python'], f['precision']) for f in found] == [
      ('./old', 'float32'), ('./new', 'float32'), ('./new', 'mixed')]
  old, _, mixed = figures['configurations']
  assert old['facts']['peak_memory_mib'] == 300
  np.testing.assert_allclose(  # Samples of 0.1 to 0.5 s.
      [old['rows']['floor']['wall'][k] for k in (
          'quartile_1', 'median', 'quartile_3')], [0.2, 0.3, 0.4])
  assert abs(old['rows']['floor']['cpu']['median'] - 0.6) < 1e-9
  np.testing.assert_allclose(
      [old['ratios'][name]['wall'] for name in (
          'step + input / floor', 'published step + input / ours',
          'input, images/s / what the step takes')],
      [1.144, 0.2 / 0.1144, 104])
  assert 'published step + input / ours' not in mixed['ratios']
  assert abs(mixed['ratios'][
      'step + input, precision float32 / mixed']['cpu'] - 2) < 1e-9

  turns = (tmp_path / 'turns').read_text().splitlines()
  steps = [turn for turn in turns if 'thread' not in turn]
  assert steps[:6] == ['old floor 1', 'new floor 1', 'new floor 1',
                       'old step 1', 'new step 1', 'new step 1']
  assert len(steps) == 4 * (5 + 5 + 4)
  assert steps[-2:] == ['old published step + input 2',
                        'new published step + input 2']

  assert '| floor | 300.00 (200.00 to 400.00) | 600.00' in out
  assert '| 1.000 | 1.000 | 10.0 |' in out
  # 128 images in 3 and 15 ms.
  assert '| 4 | 42667 | 21333 | 8533 | 4267 | 5.00 | 5.00 |' in out
  assert 'float32, TensorFlow old | step + input / floor | 1.14 | 1.14 |' in out


@pytest.mark.parametrize('args,named', [
    (['--data_dir='], ['data_dir', 'must be given']),
    (['--pythons=python_of_nowhere'], ['--pythons', 'python_of_nowhere']),
    (['--pythons='], ['--pythons']),
    (['--batch_sizes=128,0'], ['--batch_sizes', "'0'"]),
    (['--batch_sizes=many'], ['--batch_sizes', 'many']),
    (['--precisions=float16'], ['--precisions', 'float32, mixed']),
    (['--xla=maybe'], ['--xla', 'maybe']),
    (['--studentnets=a,a'], ['--studentnets=a,a', 'twice']),
    (['--repeats=0'], ['repeats']),
    (['--output=.'], ['--output=. is a directory']),
    (['--output=/dev/null/x'], ['--output=/dev/null']),
    (['--trained_mentornet_dir='], ['--trained_mentornet_dir']),
])
def test_slips_are_one_line(args, named, tmp_path):
  code, out, err = _run(tmp_path, '--data_dir=data', *args)
  assert code == 2 and not out
  assert len(err.splitlines()) == 1
  for text in named:
    assert text in err
  assert not list(tmp_path.iterdir())


def test_a_python_without_tensorflow(tmp_path):
  _program(tmp_path / 'bare', '#!/bin/sh\necho No module named x >&2; exit 3\n')
  code, out, err = _run(tmp_path, '--data_dir=data', '--pythons=./bare')
  assert code == 1 and not out and len(err.splitlines()) == 1
  assert './bare ended with exit code 3' in err and 'No module named x' in err


def test_a_real_process(config, tmp_path):
  def found(studentnets, **settings):
    return benchmark._facts_of(benchmark._Child(
        sys.executable, 'check', config._replace(**settings), str(tmp_path),
        studentnets=studentnets, precisions=['float32']))

  assert found(['resnet8_thin', 'resnet32'])['refused'] == {}
  with pytest.raises(UserError, match='--studentnets=resnet8,x: resnet8 is'):
    found(['resnet8', 'x'])


def test_a_process_that_fails_says_so(config, tmp_path):
  with pytest.raises(RunError, match="while it measured .*KeyError: 'pudding'"):
    benchmark._facts_of(benchmark._Child(
        sys.executable, 'pudding', config, str(tmp_path)))


def test_rows_of_a_step(config, tmp_path, monkeypatch):
  monkeypatch.setattr(benchmark, '_settle', lambda: None)
  rows, facts = benchmark._step_rows(config, {'scratch': str(tmp_path)})
  assert list(rows) == [
      'floor', 'step', 'step + input', 'step + input + summaries',
      'published step + input', 'mentor', 'mixing', 'update', 'statistics',
      'summaries', 'input', 'matrix product, float32']
  for row in rows.values():
    wall, cpu = benchmark._time(row._replace(calls=2, warm_up=0), 1)
    assert len(wall) == len(cpu) == 1 and wall[0] > 0
  operations = facts['operations']
  assert operations['step'] == operations['published step + input']
  # The step has at most one more, the first kernel's gradient by its images.
  first = 2 * 4 * 32 * 32 * 3 * 9 * 16
  assert operations['step'] - operations['floor'] in (0, first)
  assert operations['matrix product, float32'] == 2 * 2048 ** 3


def test_rows_of_the_input(config, monkeypatch):
  monkeypatch.setattr(benchmark, '_settle', lambda: None)
  rows, _ = benchmark._input_rows(config, {})
  assert list(rows)[:3] == ['ours, 1 thread', 'published, 1 thread',
                            'ours, 2 threads']
  for row in rows.values():
    batch = row.run()
    assert batch == [None, None]  # Made, but not copied.


def test_memory_of_training(config):
  rows, facts = benchmark._memory(config, {})
  assert not rows and facts['peak_memory_mib'] > 50
