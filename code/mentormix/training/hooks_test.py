"""The hooks of the training session, each alone."""
import io
import sys

import numpy as np
import pytest

from mentormix import checkpoints
from mentormix import progress
from mentormix import signals
from mentormix.mentornet import loss_traces
from mentormix.messages import RunError
from mentormix.runtime import tf
from mentormix.training import hooks
from mentormix.training.step_test import B
from mentormix.training.step_test import batch
from mentormix.training.step_test import partial_step


@pytest.fixture(autouse=True)
def fresh_graph():
  tf.reset_default_graph()


@pytest.mark.parametrize('loss,size,said', [
    (float('nan'), 1.0, 'at step 8 the loss is nan;'),
    (1.0, float('inf'), 'at step 8 the sum of squared weights is inf;'),
    (1.0, 1.0, None)])
def test_numbers_gone_bad_end_training_in_that_step(tmp_path, loss, size, said):
  step = partial_step(loss=tf.constant(loss), weights_l2=tf.constant(size),
               done=tf.constant(8))
  with tf.train.MonitoredSession(
      hooks=[hooks.NanHook(step, 0.1, str(tmp_path))]) as session:
    if said:
      with pytest.raises(RunError, match=f"{said}.* lower --learning_rate=0.1"):
        session.run([])
    else:
      session.run([])


def _global_step(start):
  return tf.get_variable(
      'global_step', initializer=np.int64(start), trainable=False,
      collections=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.GLOBAL_STEP])


def _trace(directory, steps, start=0, saved_after=()):
  """Runs a TraceHook; rows are written as before checkpoints at these steps."""
  tf.reset_default_graph()
  path = str(directory / 'losses.csv')
  _global_step(start)
  examples = batch()
  percent = tf.get_variable('percent', [], tf.int32, tf.zeros_initializer(),
                            use_resource=True)
  before = percent.read_value()
  with tf.control_dependencies([before]):
    bump = percent.assign_add(1)
  step = partial_step(train_op=bump, done=start + 1 + before,
                      unmixed=tf.ones([B]), epoch_percent=before)
  hook = hooks.TraceHook(step, examples, path, str(directory), 100 * B,
                         is_new=not start)
  with tf.train.SingularMonitoredSession(hooks=[hook]) as session:
    for done in range(start, start + steps):
      session.run(step.train_op)
      if done + 1 in saved_after:
        hook.before_save(done + 1)
  with open(path) as f:
    return [line.split(',') for line in f.read().splitlines()[1:]]


def test_a_trace_has_the_rows_of_evenly_spread_steps(tmp_path, monkeypatch):
  with tf.Session() as session:
    examples = session.run(batch())
  rows = _trace(tmp_path, 4, saved_after=(1, 3))
  assert len(rows) == 3 * B  # The last step was never saved.
  assert [row[1] for row in rows[::B]] == ['0', '1', '2']
  assert [int(row[2]) for row in rows] == list(examples.labels) * 3
  assert [int(row[3]) for row in rows] == list(examples.clean_labels) * 3
  rows = _trace(tmp_path, 2, start=3, saved_after=(4, 5))
  assert len(rows) == 5 * B
  rows = _trace(tmp_path, 1, start=4, saved_after=())  # 5 was damaged.
  assert len(rows) == 4 * B
  monkeypatch.setattr(loss_traces, 'MAX_ROWS', 40 * B)
  (tmp_path / 'losses.csv').unlink()
  rows = _trace(tmp_path, 9, saved_after=(9,))
  assert [row[1] for row in rows[::B]] == ['0', '3', '6']  # 100 steps, 40 kept.


def _show_two_steps():
  """Runs a ProgressHook from step 4 to 6 of 6."""
  bump = tf.assign_add(_global_step(4), 1)
  step = partial_step(done=bump, loss=tf.constant(1.25),
                      selected=tf.constant(0.5))
  with tf.train.MonitoredSession(
      hooks=[hooks.ProgressHook(step, 6)]) as session:
    session.run(bump)
    session.run(bump)


def test_progress_lines(capsys, monkeypatch):
  monkeypatch.setattr(progress, 'LOG_SECS', 0)
  _show_two_steps()
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2
  assert 'step 5/6 (83.3%)  loss 1.250  selected 50%' in lines[0]
  assert 'step 6/6 (100.0%)' in lines[1] and '0:00:00 left' in lines[1]


def test_progress_bar_on_a_terminal(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setattr(sys, 'stdout', Terminal())
  _show_two_steps()
  shown = sys.stdout.getvalue()
  assert 'loss=1.250' in shown and 'selected=50%' in shown
  assert shown.rstrip().split('\r')[-1].startswith('100%') and '6/6' in shown


@pytest.mark.parametrize('every,by,saved', [
    (0, 1, [4, 9]), (3, 1, [4, 6, 9]), (100, 1, [4, 9]),
    (5, 2, [4, 6, 10, 14])])  # Another worker takes every second step.
def test_checkpoints_every_so_many_steps(tmp_path, every, by, saved):
  bump = tf.assign_add(_global_step(4), by)
  hook = hooks.CheckpointHook(
      tf.train.Saver(max_to_keep=9), partial_step(done=bump), str(tmp_path),
      1000, every, signals.Signals())
  with tf.train.MonitoredSession(hooks=[hook]) as session:
    for _ in range(5):
      session.run(bump)
  assert sorted(checkpoints.find(str(tmp_path))) == saved
