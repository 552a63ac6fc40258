"""A step in parts against the step of the whole batch."""
import subprocess
import sys

import numpy as np
import pytest

from mentormix import schedules
from mentormix import students
from mentormix import testing
from mentormix.runtime import slim, tf
from mentormix.students import resnet
from mentormix.training import step as step_lib
from mentormix.training import step_test

PUBLISHED = [
    dict(method='cross_entropy'), dict(method='mixup'),
    dict(method='mentornet'), dict(method='mentormix', second_reweight=False),
    dict(method='mentormix')]
ALL_METHODS = PUBLISHED + [
    dict(method='bootstrap_soft'), dict(method='bootstrap_hard'),
    dict(method='s_model'), dict(method='gce'), dict(method='elr'),
    dict(method='co_teaching', forget_rate=0.5),
    dict(method='mentormix', weight_decay=0.01)]


def _plain(images, num_classes, is_training, update_statistics=True,
           dtype=tf.float32):
  """A student without batch statistics."""
  del is_training, update_statistics, dtype
  with tf.variable_scope('Plain', custom_getter=resnet._getter(tf.float32)):
    x = slim.conv2d(images, 8, 5, 4, activation_fn=tf.tanh, scope='conv')
    return slim.fully_connected(slim.flatten(x), num_classes,
                                activation_fn=None, scope='logit')


def _fade(features):
  """A MentorNet whose weights depend on the losses of the whole batch."""
  return tf.sigmoid(-features[:, 1])


def _run(steps, student='plain', rows=None, **settings):
  """Variables after some steps, and the loss of each step."""
  tf.reset_default_graph()
  tf.set_random_seed(4)
  batch = step_test.batch()
  if rows is not None:
    rows = list(rows)
    batch = batch._replace(images=tf.gather(batch.images, rows),
                           labels=tf.gather(batch.labels, rows),
                           indices=tf.range(len(rows)))
    settings['batch_size'] = len(rows)
  step = step_lib.build_step(
      step_test.CONFIG._replace(studentnet=student, **settings),
      step_test.DIGITS, 1000, batch, _fade)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(3)
    for v in sorted(tf.global_variables(), key=lambda v: v.op.name):
      if v.op.name.endswith(('DW', 'biases', 'a', 'Average')):
        v.load(np.float32(0.1 * rng.randn(*v.shape.as_list())), session)
    before = session.run({v.op.name: v for v in tf.global_variables()})
    read = session.run([step.loss, step.v])  # This changes nothing.
    for name, value in session.run(
        {v.op.name: v for v in tf.global_variables()}).items():
      np.testing.assert_array_equal(value, before[name], name)
    losses = [session.run([step.loss, step.train_op])[0] for _ in range(steps)]
    values = session.run({v.op.name: v for v in tf.global_variables()})
  assert losses[0] == read[0]
  return values, losses


def _assert_close(one, other, tolerance=1e-5):
  for x, y in zip(one[1], other[1]):
    np.testing.assert_allclose(x, y, rtol=tolerance)
  assert sorted(one[0]) == sorted(other[0])
  for name, value in one[0].items():
    np.testing.assert_allclose(value, other[0][name], rtol=tolerance,
                               atol=tolerance, err_msg=name)


@pytest.mark.parametrize('settings,count', [
    (settings, 2) for settings in ALL_METHODS] + [
        (settings, 8) for settings in PUBLISHED], ids=str)
def test_equal_without_batch_statistics(monkeypatch, settings, count):
  """Over steps: weights, momentum, averages, losses, those of the mentors."""
  monkeypatch.setitem(students.STUDENTS, 'plain', students.Student(
      _plain, decayed=('DW',)))
  monkeypatch.setattr(schedules, 'FORGETTING_EPOCHS', 0.016)  # Two steps.
  whole = _run(3, **settings)
  assert abs(whole[1][0] - whole[1][2]) > 1e-3
  _assert_close(_run(3, microbatches=count, **settings), whole)


@pytest.mark.parametrize('settings', PUBLISHED[2:], ids=str)
def test_batch_norm_by_part(settings):
  """Of two equal halves, the statistics are those of the whole batch."""
  run = lambda count: _run(
      2, 'resnet8_thin', [0, 1, 2, 3] * 2, microbatches=count, mixup_alpha=0.0,
      learning_rate=0.001, **settings)
  _assert_close(run(2), run(1), 2e-4)


def test_moving_statistics_go_to_the_mean_of_the_parts():
  """Once a step: to the mean of where each part alone moves them."""
  run = lambda rows, count: _run(
      1, 'resnet8_thin', rows, microbatches=count, method='cross_entropy',
      learning_rate=1e-9)[0]
  both = run(range(8), 2)
  parts = run(range(4), 1), run(range(4, 8), 1)
  names = [name for name in both if 'moving' in name]
  assert len(names) == 4 * 7
  for name in names:
    mean = (parts[0][name] + parts[1][name]) / 2
    np.testing.assert_allclose(both[name], mean, rtol=1e-4, atol=1e-5,
                               err_msg=name)
    assert not name.endswith('local_step') or both[name] == 1


def test_a_pass_forward_only_where_a_weight_needs_it():
  """Counts the convolutions that a step of two parts runs."""
  calls = []
  for settings in PUBLISHED + [
      dict(method='s_model'), dict(method='elr'),
      dict(method='co_teaching', forget_rate=0.5)]:
    tf.reset_default_graph()
    step = step_lib.build_step(
        step_test.CONFIG._replace(microbatches=2, **settings), step_test.DIGITS,
        1000, step_test.batch(), _fade)
    graph = tf.graph_util.extract_sub_graph(
        tf.get_default_graph().as_graph_def(),
        [step.train_op.name, step.loss.op.name])
    kinds = [node.op for node in graph.node]
    assert kinds.count('Conv2DBackpropFilter') == 2 * 7
    calls.append(kinds.count('Conv2D') // 14)
  assert calls == [1, 1, 2, 2, 3, 1, 2, 2]


_MEMORY = """
import re, sys
sys.path.insert(0, sys.argv[1])
from mentormix import students
from mentormix.runtime import slim, tf
from mentormix.training import step as step_lib, step_test
def wide(images, num_classes, is_training, update_statistics=True,
         dtype=tf.float32):
  x = tf.tile(images, [1, 3, 3, 8])
  for k in range(24):
    x = tf.tanh(x * tf.get_variable('w%d' % k, [24]))
  return slim.fully_connected(tf.reduce_mean(x, [1, 2]), num_classes)
students.STUDENTS['wide'] = students.Student(wide)
batch = step_test.batch()
size = 64
batch = batch._replace(images=tf.random.uniform([size, 32, 32, 3]),
                       labels=tf.tile(batch.labels, [size // 8]))
step = step_lib.build_step(step_test.CONFIG._replace(
    studentnet='wide', batch_size=size, microbatches=int(sys.argv[2]),
    weight_decay=0.0), step_test.DIGITS, 1000, batch, step_test._half)
# Unlike ru_maxrss, it does not start with that of the parent process.
status = lambda: open('/proc/self/status').read()
peak = lambda: int(re.search('VmHWM: *\\t* *([0-9]+)', status())[1]) / 1024
with tf.Session(config=tf.ConfigProto(inter_op_parallelism_threads=4)) as s:
  s.run(tf.global_variables_initializer())
  before = peak()
  for _ in range(2):
    s.run(step.train_op)
  print('MiB', peak() - before)
"""


def _memory(count):
  done = subprocess.run(
      [sys.executable, '-c', _MEMORY, testing.CODE, str(count)], check=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
  assert 'sorted' not in done.stderr  # The graph optimizer made no cycle.
  return float(done.stdout.split('MiB')[1])


@pytest.mark.slow
def test_memory_is_that_of_a_part():
  """24 layers of 54 MiB, or of 7 MiB; with both mentors."""
  whole, eighth = _memory(1), _memory(8)
  assert whole > 20 * 54
  assert eighth < whole / 3
