"""What training and evaluation promise when something breaks.

The commands run as users run them, in processes of their own, on a few digits.
Each test breaks one thing, then starts the same command again. It must resume
from the newest readable checkpoint and end with the same bits as a run that
nothing happened to. No saved step and no row of a table may be lost or doubled.
A command that cannot resume says so in one line.
"""
import os
import random as random_lib
import re
import shutil
import signal
import subprocess
import sys
import time

import cifar_eval
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import files
from mentormix import testing
from mentormix.evaluation import results as results_lib
from mentormix.runtime import tf

pytestmark = pytest.mark.slow

STEPS = 600
KILLS = 4  # Of the trainer and of the evaluator, each.
LIMIT = 300  # Seconds in which a command has to do what it must.
ONE_THREAD = {name: '1' for name in (  # This fixes the order of sums.
    'OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS')}
READY = r'step \d+/\d+ |evaluating|waiting'
RESUMED = r'(?:from|is already at) step (\d+)|a new run'
SAVED = r'SIGUSR1: checkpoint of step (\d+) saved'
DATA, INDEX = '.data-00000-of-00001', '.index'


class Process:
  """A command in a process of its own; its output goes to files."""

  def __init__(self, args, log, before=(), stdout=None):
    """Starts it.

    Args:
      args: the script's path and its flags.
      log: path of the files for the output, without their endings.
      before: words before the command line, such as nohup.
      stdout: where it prints to instead.
    """
    self._log = str(log)
    with open(self._log + '.out', 'w') as out, \
        open(self._log + '.err', 'w') as err:
      self._process = subprocess.Popen(
          [*before, sys.executable, *map(str, args)],
          stdout=stdout or out, stderr=err,
          env=dict(os.environ, **ONE_THREAD), preexec_fn=_default_signals)
    self.pid = self._process.pid
    self.send = self._process.send_signal

  def text(self, ending='.out'):
    """What it has printed so far; with '.err' what it wrote to stderr."""
    with open(self._log + ending, errors='replace') as f:
      return f.read()

  def ended(self):
    return self._process.poll() is not None

  def wait_for(self, pattern):
    """The first match in what it prints."""
    end = time.time() + LIMIT
    while True:
      ended = self.ended()
      found = re.search(pattern, self.text())
      if found:
        return found
      assert not ended, self.text('.err')
      assert time.time() < end, f'{pattern} does not come: {self.text()}'
      time.sleep(0.02)

  def finish(self):
    """(exit code, stdout, stderr)."""
    code = self._process.wait(LIMIT)
    return code, self.text(), self.text('.err')

  def kill(self):
    self._process.kill()
    self._process.wait()


def _default_signals():
  """Tests may run in the background, where the shell ignores some signals."""
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


class Run:
  """The directories of a run, its commands, and what must hold for it."""

  def __init__(self, directory, digits, logs=None):
    self.directory, self._digits = str(directory), digits
    self._logs = str(logs or directory)  # May be on another disk.
    self.train_dir = os.path.join(self.directory, 'train')
    self.eval_dir = os.path.join(self.directory, 'eval')
    self.trace = os.path.join(self.directory, 'losses.csv')
    self.results = os.path.join(self.eval_dir, results_lib.FILE)
    self._processes = []

  def _start(self, script, settings, before=(), stdout=None):
    log = f'{self._logs}-log{len(self._processes)}'
    self._processes.append(Process(
        [os.path.join(testing.CODE, script), *testing.to_flags(**settings)],
        log, before, stdout))
    return self._processes[-1]

  def train(self, before=(), stdout=None, **settings):
    """Starts the trainer."""
    return self._start('cifar_train_mentormix.py', testing.train_settings(
        self._digits, **dict(
            dict(train_log_dir=self.train_dir, loss_csv_file=self.trace,
                 batch_size=4, max_number_of_steps=STEPS, save_interval_secs=1,
                 save_summaries_secs=1), **settings)), before, stdout)

  def _eval_settings(self):
    return dict(data_dir=os.path.join(self._digits, 'val'),
                checkpoint_dir=self.train_dir, eval_dir=self.eval_dir,
                eval_interval_secs=1, device_id='')

  def evaluate(self):
    """Starts the evaluator."""
    return self._start('cifar_eval.py', self._eval_settings())

  def evaluate_once(self):
    """Evaluates what is there; (exit code, stdout, stderr)."""
    return testing.run_command(cifar_eval, '--once', *testing.to_flags(
        **self._eval_settings()))

  def copy(self, other):
    """Makes this run one that `other` is a part of."""
    shutil.copytree(other.directory, self.directory)
    path = os.path.join(self.train_dir, config_lib.CONFIG_FILE)
    text = _contents(path).decode().replace(other.directory, self.directory)
    with open(path, 'w') as f:
      f.write(text)

  def stop(self):
    """Ends all that still runs."""
    for process in self._processes:
      process.kill()

  def readable(self):
    """Steps of the checkpoints with a value for every variable."""
    return {step for step in self.steps()
            if _is_readable(self.prefix(step), step)}

  def steps(self):
    """Steps of the checkpoints that have an index, sorted."""
    found = (re.match(r'model\.ckpt-(\d+)\.index$', name)
             for name in _names(self.train_dir))
    return sorted(int(match.group(1)) for match in found if match)

  def prefix(self, step):
    return os.path.join(self.train_dir, f'model.ckpt-{step}')

  def newest(self):
    """The step to resume from; 0 for a new run."""
    return max(self.readable(), default=0)

  def listed(self):
    """The step that the list of checkpoints calls the latest; 0 for none."""
    state = (tf.train.get_checkpoint_state(self.train_dir)
             if os.path.isdir(self.train_dir) else None)
    return int(state.model_checkpoint_path.split('-')[-1]) if state else 0

  def rows(self):
    """The rows of results.csv; each step has one."""
    rows = results_lib.read(self.results)
    assert len({row.step for row in rows}) == len(rows)
    return rows

  def assert_resumes(self, process, step):
    assert int(process.wait_for(RESUMED).group(1) or 0) == step

  def assert_finishes_as(self, uncut, resumed_from):
    """Starts training again; it must resume there, and end as `uncut` did."""
    process = self.train()
    self.assert_resumes(process, resumed_from)
    code, _, err = process.finish()
    assert code == 0, err
    self.assert_ended_as(uncut)

  def assert_ended_as(self, uncut):
    """The same bits in each variable and each row; no temporary file."""
    ours, theirs = (testing.weights(run.train_dir) for run in (self, uncut))
    assert sorted(ours) == sorted(theirs) and ours['global_step'] == STEPS
    for name, value in theirs.items():
      np.testing.assert_array_equal(ours[name], value, name)
    assert _contents(self.trace) == _contents(uncut.trace)
    assert not [name for name in _names(self.train_dir)
                if re.search(r'\.tempstate|_temp_|\.tmp', name)]


def _is_readable(prefix, step):
  try:
    return testing.weights(prefix)['global_step'] == step
  except (tf.errors.OpError, ValueError, LookupError, RuntimeError):
    return False


def _names(directory):
  return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def _contents(path):
  with open(path, 'rb') as f:
    return f.read()


def contents(directory):
  """Name -> content of every file in a directory but the lock."""
  return {name: _contents(os.path.join(directory, name))
          for name in _names(directory) if name != files.LOCK_FILE}


@pytest.fixture(scope='module')
def uncut(digits, tmp_path_factory):
  """A run that nothing happened to."""
  run = Run(tmp_path_factory.mktemp('uncut') / 'run', digits)
  code, _, err = run.train().finish()
  assert code == 0, err
  return run


@pytest.fixture(scope='module')
def half(digits, tmp_path_factory):
  """A run that was stopped half way; its last two steps are not evaluated."""
  run = Run(tmp_path_factory.mktemp('half') / 'run', digits)
  process = run.train()
  process.wait_for(READY)
  while len(run.steps()) < 4 or run.newest() < STEPS // 3:
    before = process.text()
    process.send(signal.SIGUSR1)
    process.wait_for(re.escape(before) + r'(?s:.*?)' + SAVED)
  process.send(signal.SIGTERM)
  assert process.finish()[0] == 128 + signal.SIGTERM
  assert 3 < len(run.steps()) and run.newest() < STEPS
  hidden = [(path, path + '.hidden') for step in run.steps()[-2:]
            for path in (run.prefix(step) + INDEX,)]
  for path, away in hidden:
    os.rename(path, away)
  run.evaluate_once()
  for path, away in hidden:
    os.rename(away, path)
  assert [row.step for row in run.rows()] == run.steps()[:-2]
  return run


@pytest.fixture
def new(digits, tmp_path):
  """A run that has not started."""
  run = Run(tmp_path / 'run', digits)
  yield run
  run.stop()


@pytest.fixture
def run(new, half):
  """A copy of the run that was stopped half way."""
  new.copy(half)
  return new


def test_a_run_whose_reader_goes_saves_a_checkpoint(new, uncut):
  """As in `| head`: it ends after the running step, without a word."""
  reader, writer = os.pipe()
  process = new.train(stdout=writer)
  os.close(writer)
  with open(reader) as lines:
    assert any('step 1/' in line for line in lines)
  process.send(signal.SIGUSR1)  # It saves, and has a line to print.
  assert process.finish() == (128 + signal.SIGPIPE, '', '')
  assert 0 < new.newest() < STEPS
  new.assert_finishes_as(uncut, new.newest())


# Killed processes.


def _live(process, random, save=False):
  """Lets a command live for a random time, part of it or all in its start."""
  if random.random() < 0.3:
    time.sleep(random.uniform(0, 5))
    return
  process.wait_for(READY)
  end = time.time() + random.uniform(0, 2)
  while time.time() < end and not process.ended():
    if save:  # A large part of the time then goes into checkpoints.
      process.send(signal.SIGUSR1)
    time.sleep(0.2)


def test_a_killed_run_ends_bit_for_bit_as_an_uncut_one(new, uncut):
  random = random_lib.Random(0)
  trainer, evaluator = new.train(), new.evaluate()
  rows, killed = [], 0
  for _ in range(KILLS):
    _live(trainer, random, save=True)
    listed, running = new.listed(), not trainer.ended()
    trainer.kill()
    killed += running
    assert listed <= new.listed() or not listed
    assert new.listed() in new.readable() | {0}
    resumed = new.newest()
    assert resumed >= listed
    trainer = new.train()
    new.assert_resumes(trainer, resumed)

    _live(evaluator, random)
    evaluator.kill()
    if os.path.exists(new.results):
      assert set(rows) <= set(new.rows())
      rows = new.rows()
    evaluator = new.evaluate()
  assert killed > KILLS // 2
  assert trainer.finish()[0] == 0, trainer.text('.err')
  assert evaluator.finish()[0] == 0, evaluator.text('.err')
  new.assert_ended_as(uncut)
  assert set(rows) <= set(new.rows()) and new.rows()[-1].step == STEPS
