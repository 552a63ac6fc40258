"""More of what faults_test.py says, with damaged files, disks and signals."""
import contextlib
import os
import re
import signal
import subprocess

from faults_test import contents
from faults_test import DATA
from faults_test import half  # noqa: F401  These four are fixtures.
from faults_test import INDEX
from faults_test import new  # noqa: F401
from faults_test import Process
from faults_test import READY
from faults_test import Run
from faults_test import run  # noqa: F401
from faults_test import SAVED
from faults_test import STEPS
from faults_test import uncut  # noqa: F401
import pytest

from mentormix import testing

pytestmark = pytest.mark.slow


# Damaged checkpoints.


def _cut(path):
  os.truncate(path, os.path.getsize(path) // 2)


def _flip(path):
  """Flips bits all over a data file, or the first that matters in an index."""
  size = os.path.getsize(path)
  with open(path, 'r+b') as f:
    for place in [10] if path.endswith(INDEX) else range(0, size, size // 99):
      f.seek(place)
      byte = f.read(1)[0]
      f.seek(place)
      f.write(bytes([byte ^ 0x80]))


@pytest.mark.parametrize('ending', [DATA, INDEX])
@pytest.mark.parametrize('damage', [_cut, _flip, os.remove])
def test_the_newest_checkpoints_are_damaged(run, uncut, damage, ending):
  steps = run.steps()
  hit = steps[-2:]
  for step in hit:
    damage(run.prefix(step) + ending)
  good = steps[-3]
  assert run.newest() == good
  before, rows = contents(run.train_dir), run.rows()

  finished = run.evaluate_once()
  assert contents(run.train_dir) == before
  assert set(rows) <= set(run.rows())
  assert {row.step for row in run.rows()} == run.readable()
  if (damage, ending) != (os.remove, INDEX):  # Then there is no checkpoint.
    testing.assert_one_line(finished, 1, run.train_dir)

  process = run.train()
  run.assert_resumes(process, good)
  for step in hit:
    if (damage, ending) != (os.remove, INDEX):
      assert f'model.ckpt-{step} cannot be read' in process.text()
  kept = set(contents(run.train_dir).values())
  for name, content in before.items():
    if any(name.startswith(f'model.ckpt-{step}.') for step in hit):
      assert content in kept, f'{name} is deleted'
  assert process.finish()[0] == 0, process.text('.err')
  run.assert_ended_as(uncut)


# Disks that are full or read-only.


class Full:
  """A run on a small disk, which can be filled."""

  def __init__(self, run):
    self.run, self._filler = run, os.path.join(run.directory, 'filler')

  def strike(self, room=0):
    """Leaves room for this share of a checkpoint."""
    rest = os.path.getsize(self.run.prefix(self.run.newest()) + DATA) * room
    testing.fill_disk(self.run.directory)
    size = os.path.getsize(self._filler)
    os.truncate(self._filler, max(size - int(rest), 0))

  def fix(self):
    os.remove(self._filler)


class ReadOnly:
  """A run whose directory can be covered by a read-only view of itself."""

  def __init__(self, run):
    self.run = run

  def strike(self, room=0):
    del room
    directory = self.run.directory
    subprocess.check_call(['mount', '--bind', directory, directory])
    subprocess.check_call(['mount', '-o', 'remount,bind,ro', directory])

  def fix(self):
    subprocess.check_call(['umount', '-l', self.run.directory])


@pytest.fixture(params=[Full, ReadOnly])
def disk(half, digits, request, tmp_path):
  """A disk with a copy of the run that was stopped half way."""
  with testing.small_disk('64m') as directory:
    run = Run(os.path.join(directory, 'run'), digits, tmp_path / 'run')
    run.copy(half)
    disk = request.param(run)
    yield disk
    run.stop()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
      disk.fix()


@pytest.mark.parametrize('when', ['start', 'checkpoint', 'summary'])
def test_the_disk_fails_in_training(disk, uncut, when):
  run = disk.run
  if when == 'start':
    disk.strike(room=0.5)
  process = run.train(save_interval_secs=600 if when == 'summary' else 1)
  if when != 'start':
    process.wait_for(READY)
    disk.strike(room=0.5 if when == 'checkpoint' else 0)
  if when == 'checkpoint':
    process.send(signal.SIGUSR1)
  saved = run.newest()
  finished = process.finish()
  assert finished[0] in ((1, 2) if when == 'start' else (1,))
  testing.assert_one_line(
      finished, finished[0], run.directory,
      '' if when == 'start' else 'then rerun the same command to resume from')
  assert run.newest() >= saved
  disk.fix()
  run.assert_finishes_as(uncut, run.newest())


def test_the_disk_fails_at_a_result(disk):
  run, rows = disk.run, disk.run.rows()
  disk.strike()
  finished = run.evaluate_once()
  assert finished.code in (1, 2)
  testing.assert_one_line(finished, finished.code, run.eval_dir)
  assert run.rows() == rows
  disk.fix()
  code, _, err = run.evaluate_once()
  assert code == 0, err
  assert [row.step for row in run.rows()] == run.steps()


# Other processes and signals.


@pytest.mark.parametrize('command', [Run.train, Run.evaluate])
def test_a_second_process_on_the_same_directory(run, command):
  first = command(run)
  first.wait_for(READY)
  first.send(signal.SIGSTOP)  # It must not end meanwhile.
  testing.assert_one_line(command(run).finish(), 2, f'process {first.pid} ')
  first.send(signal.SIGCONT)
  if command is Run.train:
    first.send(signal.SIGUSR1)
    first.wait_for(SAVED)
  assert not first.ended()
  first.kill()
  command(run).wait_for(READY)  # The directory is free again.


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP'])
def test_a_signal_ends_a_run_after_a_checkpoint(run, uncut, name):
  number = getattr(signal, name)
  process = run.train()
  process.wait_for(READY)
  process.send(number)
  code, out, err = process.finish()
  assert code == 128 + number, err
  said = re.search(rf'stopped by {name} at step (\d+), checkpoint saved', out)
  assert int(said.group(1)) == run.newest() == run.listed()
  run.assert_finishes_as(uncut, run.newest())


@pytest.mark.parametrize('before', [(), ('nohup',)])
def test_sigusr1_saves_and_training_continues(run, before):
  process = run.train(before, save_interval_secs=600)
  process.wait_for(READY)
  if before:
    process.send(signal.SIGHUP)  # Which nohup ignores.
  process.send(signal.SIGUSR1)
  step = int(process.wait_for(SAVED).group(1))
  assert step in run.readable()
  process.wait_for(f'trained to step {STEPS}')


def test_a_second_signal_ends_a_command_at_once(tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(
      f'import sys; sys.path[:0] = [{testing.CODE!r}]\n'
      'import signal, time\n'
      'from mentormix import signals\n'
      'stop = signals.Signals()\n'
      'stop.install()\n'
      'print("waiting", flush=True)\n'
      'while True:\n'
      '  time.sleep(0.01)\n'
      '  if stop.stopped_by:\n'
      '    print("noted", flush=True)\n')
  process = Process([program], tmp_path / 'log')
  process.wait_for('waiting')
  process.send(signal.SIGTERM)
  process.wait_for('noted')
  process.send(signal.SIGTERM)
  assert process.finish()[0] == -signal.SIGTERM
