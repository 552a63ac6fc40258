"""The promises hold for a few faults of each kind; broken ones are found."""
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import inject_faults
from mentormix import results
from mentormix import runtime
from mentormix.runtime import tf

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                      'inject_faults.py')


def _run(*args):
  """(exit code, stdout, stderr) of the script."""
  process = subprocess.Popen(
      [sys.executable, SCRIPT] + list(args), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, universal_newlines=True)
  out, err = process.communicate()
  return process.returncode, out, err


def test_the_promises_are_kept(tmp_path):
  """One fault of each kind, of every other kind on either runtime."""
  faults = list(inject_faults.FAULTS)[0 if runtime.IS_1_15 else 1::2]
  code, out, err = _run('--output_dir=%s' % tmp_path, '--count=1',
                        '--steps=400', '--faults=' + ','.join(faults))
  assert code == 0, out + err
  with open(str(tmp_path / 'faults.json')) as f:
    rows = json.load(f)['rows']
  assert [row['fault'] for row in rows] == faults
  for row in rows:
    # Where this machine can mount a disk.
    assert row['injected'] == 1 or row['note'] == 'not possible here'
    assert row['runtime'] == tf.__version__ and not row['violations']
  assert rows[0]['runs_compared'] and rows[0]['largest_difference'] == 0
  text = (tmp_path / 'faults.md').read_text()
  assert '| %s | %s | 1 | 0 | 0 |' % (faults[0], tf.__version__) in text
  # Nothing but the report stays.
  assert sorted(os.listdir(str(tmp_path))) == ['faults.json', 'faults.md']


class _Here(concurrent.futures.Executor):
  """Runs what it is given at once, in this process."""

  def submit(self, function, *args):
    future = concurrent.futures.Future()
    future.set_result(function(*args))
    return future


@pytest.fixture
def bench(tmp_path):
  """A bench whose commands are Python programs in a line."""
  (tmp_path / 'work').mkdir()
  made = inject_faults.Bench(
      str(tmp_path), str(tmp_path / 'work'), 7, 0, _Here())
  made.tally = inject_faults.Tally('kill', '1')
  made.tally.inject('a test')
  os.makedirs(made.train_dir)
  os.makedirs(made.eval_dir)
  yield made
  made.stop()


def _python(tmp_path, program):
  process = inject_faults.Process(
      [sys.executable, '-uc', 'import os, sys, time; ' + program],
      str(tmp_path / 'log'))
  return process


def _save(directory, step, value=1.0, names=('x', 'y')):
  """Writes a checkpoint as TensorFlow does, and its entry in the list."""
  with tf.Graph().as_default(), tf.Session() as session:
    for name in names:
      tf.get_variable(name, [100], initializer=tf.constant_initializer(value))
    tf.train.get_or_create_global_step()
    session.run(tf.global_variables_initializer())
    session.run(tf.train.get_global_step().assign(step))
    tf.train.Saver().save(session, os.path.join(directory, 'model.ckpt'), step,
                          write_meta_graph=False)


def _violations(bench):
  return ' '.join(bench.tally.violations), bench.tally.row()['lost']


@pytest.mark.parametrize('program,expected,words,lost', [
  ('print("from step 5"); time.sleep(99)', 5, '', 0),
  ('print("a new run"); time.sleep(99)', 0, '', 0),
  ('print("from step 5"); time.sleep(99)', 6, 'from step 5, not from 6', 1),
  ('print("a new run"); time.sleep(99)', 6, 'from step 0, not from 6', 1),
  ('print("from step 6"); time.sleep(99)', 5, 'from step 6, not from 5', 0),
  ('sys.exit("no way")', 5, 'does not start: exit code 1, no way', 1)])
def test_where_training_goes_on(bench, tmp_path, program, expected, words,
                                lost):
  process = _python(tmp_path, program)
  assert bench.check_resume(process, expected) == (not words)
  process.kill()
  found = _violations(bench)
  assert words in found[0] and bool(words) == bool(found[0])
  assert found[1] == lost


@pytest.mark.parametrize('program,words', [
  ('sys.exit("the disk is full")', ''),
  ('sys.exit("something")', "'disk' is not in: something"),
  ('sys.exit("the disk\\nis full")', 'not one line'),
  ('raise ValueError("the disk is full")', 'not one line: Traceback'),
  ('sys.stderr.write("the disk is full\\n"); sys.exit(3)', 'exit code 3')])
def test_how_a_command_ends(bench, tmp_path, program, words):
  process = _python(tmp_path, program)
  bench.check_line(process, process.wait(60), (1,), 'disk')
  found, _ = _violations(bench)
  assert words in found and bool(words) == bool(found)


def test_a_command_that_hangs_is_ended(bench, tmp_path):
  process = _python(tmp_path, 'time.sleep(99)')
  bench.check_line(process, process.wait(0), (1,))
  assert 'it hangs' in _violations(bench)[0]
  assert process.code() == -signal.SIGKILL


def test_saved_steps(bench):
  assert bench.check_saved(None) == 0
  for step in (3, 5):
    _save(bench.train_dir, step)
  assert bench.inspect() == (5, {3, 5})
  assert bench.check_saved(5) == 5
  assert not bench.tally.violations
  assert bench.check_saved(6) == 5
  assert 'step 6 was saved, step 5 is left' in _violations(bench)[0]
  # Those of 3 are not those of 5.
  for name in os.listdir(bench.train_dir):
    if '-3.' in name:
      shutil.copy(os.path.join(bench.train_dir, name), os.path.join(
          bench.train_dir, name.replace('-3.', '-5.')))
  assert bench.inspect() == (5, {3})
  assert bench.check_saved(5) == 3
  assert 'step 5 is listed but cannot be read' in _violations(bench)[0]


@pytest.mark.parametrize('kind', [
    kind for kind in inject_faults._DAMAGES if 'every' not in kind])
def test_every_damage_is_seen(bench, kind):
  for step in (3, 5):
    _save(bench.train_dir, step)
  ending, change = inject_faults._DAMAGES[kind]
  listed, readable = bench.inspect()
  if ending == inject_faults._STATE:
    change(bench.random, os.path.join(bench.train_dir, ending))
    assert bench.inspect() != (listed, readable)
    assert bench.inspect()[1] == readable
  else:
    path = inject_faults._prefix(bench.train_dir, 5) + ending
    if kind == 'index flipped':  # Not all of its bits mean something.
      with open(path, 'r+b') as f:
        f.seek(10)
        f.write(b'\xff')
    else:
      change(bench.random, path)
    assert bench.inspect() == (listed, {3})


def test_rows(bench):
  rows = [results.Result(step, 0.5, 0.75, 1.5, 400, 1e9) for step in (0, 3, 5)]
  assert bench.check_rows([]) == []
  inject_faults._write_rows(bench.csv, rows)
  assert bench.check_rows(rows[:2]) == rows
  assert not bench.tally.violations
  for wrong, words in (
      (rows[1:], 'rows are gone: [0]'),
      (rows + rows[2:], 'a step has two rows: [0, 3, 5, 5]'),
      (rows[:2] + [rows[2]._replace(loss=2.0)], 'rows are gone: [5]')):
    bench.tally.violations = []
    inject_faults._write_rows(bench.csv, wrong)
    bench.check_rows(rows)
    assert words in _violations(bench)[0]
  with open(bench.csv, 'a') as f:
    f.write('7,0.')
  bench.tally.violations = []
  bench.check_rows(rows)
  assert 'is not a results file' in _violations(bench)[0]


@pytest.mark.parametrize('kwargs,words', [
    ({}, ''), (dict(value=1.5), 'other numbers: y by 0.5'),
    (dict(names=['x']), 'y is in one only by inf')])
def test_how_a_run_ends(bench, tmp_path, kwargs, words):
  bench._reference = str(tmp_path / 'reference')
  _save(bench._reference, 7)
  _save(bench.train_dir, 7, **kwargs)
  bench.check_end(_python(tmp_path, ''))
  found, lost = _violations(bench)
  assert words in found and bool(words) == bool(found) == bool(lost)
  assert bench.tally.row()['runs_compared'] == 1


def test_what_is_left_over_is_found(bench, tmp_path):
  bench._reference = bench.train_dir
  _save(bench.train_dir, 7)
  for name in ('model.ckpt-5.data-00000-of-00001.tempstate123',
               'model.ckpt-5_temp_1a', 'checkpoint.tmp12'):
    open(os.path.join(bench.train_dir, name), 'w').close()
  bench.check_end(_python(tmp_path, ''))
  assert 'checkpoint.tmp12, model.ckpt-5.data' in _violations(bench)[0]
  bench.steps = 8
  bench.check_end(_python(tmp_path, ''))
  assert 'the last checkpoint cannot be read' in _violations(bench)[0]
  bench.check_end(_python(tmp_path, 'sys.exit(1)'))
  assert 'training does not end: exit code 1' in _violations(bench)[0]


def test_a_run_that_broke_a_promise_is_kept(bench, tmp_path):
  bench.clear()
  assert not os.listdir(bench.run_dir)
  assert not [name for name in os.listdir(str(tmp_path)) if 'broken' in name]
  os.makedirs(bench.train_dir)
  bench.tally.expect(False, 'it is broken')
  bench.clear()
  assert not os.listdir(bench.run_dir)
  assert (tmp_path / 'broken-kill-1' / 'run' / 'train').is_dir()


def test_the_report(tmp_path):
  good = inject_faults.Tally('kill', '1')
  good.inject('a')
  good.compare(0.0, 'x')
  bad = inject_faults.Tally('damage', '1')
  bad.inject('b')
  bad.expect(False, 'two\nlines', lost=True)
  bad.expect(False, 'more')
  skipped = inject_faults.Tally('disk_full', '1')
  skipped.note = 'not possible here'
  inject_faults.write_report(
      str(tmp_path), [tally.row() for tally in (good, bad, skipped)])
  lines = (tmp_path / 'faults.md').read_text().splitlines()
  assert lines[2:5] == ['| kill | 1 | 1 | 0 | 0 |',
                        '| damage | 1 | 1 | 1 | 2 |',
                        '| disk_full | 1 | not possible here | 0 | 0 |']
  assert '- after injection 1: two lines' in lines


def test_bad_flags(tmp_path):
  (tmp_path / 'faults.json').write_text('[')
  for args, words in (
      (['--output_dir='], '--output_dir'),
      (['--output_dir=%s' % tmp_path], 'faults.json'),
      (['--output_dir=%s' % tmp_path, '--faults=x'], 'known are kill'),
      (['--output_dir=%s' % tmp_path, '--count=0'], '--count')):
    code, _, err = _run(*args)
    assert code == 2 and words in err and 'Traceback' not in err
