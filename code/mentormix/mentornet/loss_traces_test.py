"""Loss traces: writing, resuming, reading, and errors that name the place."""
import os

import numpy as np
import pytest

from mentormix import runtime
from mentormix.data import noise
from mentormix.mentornet import loss_traces
from mentormix.mentornet import mentor
from mentormix.messages import UserError
from mentormix.runtime import tf

HEADER = 'sample_id,epoch_percent,noisy_label,clean_label,loss\n'


def _rows(label_of):
  return ''.join(f'{k % 12},{k // 12},{label_of(k)},3,{k / 10:g}\n'
                 for k in range(36))


ROWS = _rows(lambda k: 3 if k % 5 else 4)


def _file(tmp_path, text):
  path = tmp_path / 'losses.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
  return str(path)


def test_rows_can_be_read_back(tmp_path):
  path = str(tmp_path / 'losses.csv')
  writer = loss_traces.Writer(path, resume=False)
  ids = [b'%d' % k for k in range(9)] + ['a,b\u00e9/c.png'.encode('utf-8')]
  writer.add(ids, 0, np.arange(10), [3] * 10, np.arange(10) / 3)
  size = writer.flush()
  assert size == os.path.getsize(path)
  writer.add(ids, 50, [0] * 10, [0] * 10, [1e-7] * 10)
  writer.flush()
  writer.add(ids, 60, [0] * 10, [0] * 10, [1e-7] * 10)
  writer.cut(size)
  writer.add(ids, 99, np.arange(10), [4] * 10, np.arange(10.0))
  writer.flush()
  traces = loss_traces.read(path)
  assert list(traces.sample_id) == [i.decode('utf-8') for i in ids] * 2
  np.testing.assert_array_equal(traces.epoch_percent, [0] * 10 + [99] * 10)
  np.testing.assert_array_equal(traces.noisy_label, list(range(10)) * 2)
  np.testing.assert_array_equal(traces.clean_label, [3] * 10 + [4] * 10)
  np.testing.assert_allclose(traces.loss[:10], np.arange(10) / 3, rtol=1e-5)
  expected = np.zeros(20)
  expected[[3, 14]] = 1
  np.testing.assert_array_equal(traces.v_star(), expected)


def test_resuming_adds_to_the_file(tmp_path):
  path = _file(tmp_path, HEADER + ROWS + '76,5,1,2,0.')  # Cut off.
  with pytest.raises(UserError, match='losses.csv already exists'):
    loss_traces.Writer(path, resume=False)
  writer = loss_traces.Writer(path, resume=True)
  writer.add([b'77'], 5, [1], [2], [0.5])
  writer.flush()
  assert (tmp_path / 'losses.csv').read_text() == (
      HEADER + ROWS + '77,5,1,2,0.5\n')


@pytest.mark.parametrize('before', [None, '', 'sample_', HEADER])
def test_a_file_without_rows_begins_with_the_header(before, tmp_path):
  path = str(tmp_path / 'losses.csv') if before is None else _file(tmp_path,
                                                                   before)
  loss_traces.Writer(path, resume=True)
  assert (tmp_path / 'losses.csv').read_text() == HEADER
  loss_traces.Writer(path, resume=False)
  assert (tmp_path / 'losses.csv').read_text() == HEADER


def test_a_file_that_is_not_a_trace(tmp_path):
  path = _file(tmp_path, 'step,top1\n1,2\n')
  with pytest.raises(UserError, match='--loss_csv_file=.*does not hold losses'):
    loss_traces.Writer(path, resume=True)
  assert (tmp_path / 'losses.csv').read_text() == 'step,top1\n1,2\n'
  for bad in (tmp_path, tmp_path / 'none' / 'x.csv'):
    with pytest.raises(UserError, match='--loss_csv_file='):
      loss_traces.Writer(str(bad), resume=True)


@pytest.mark.parametrize('text,message', [
    ('', 'does not have the columns sample_id,epoch_percent,'),
    ('sample_id,epoch_percent,noisy_label,loss\n', 'does not have the columns'),
    (HEADER, 'holds no rows'),
    *[(HEADER + ROWS + row + '\n', 'line 38 is not valid') for row in (
        '1,2,3', '1,2,3,3,1,1', '1,2,3,3,big', '1,2,3,3,nan', '1,2,3,3,inf',
        '1,2,3,3,1e39', '1,2,3,3,-1', '1,,3,3,1', '1,101,3,3,1', '1,2,3.5,3,1',
        '1,2,3,cat,1')],
    (HEADER + _rows(lambda k: 3), 'needs rows with a right label'),
    (HEADER + _rows(lambda k: 4), 'needs rows with a right label'),
    (HEADER + '1,1,3,3,1\n2,2,4,3,1\n', '2 different values of sample_id'),
    (b'\xff\xfe\x00', 'is not a CSV file'),
    (HEADER + '"' + 'x' * 200000 + '"\n', 'is not a CSV file'),
])
def test_bad_files_are_named(text, message, tmp_path):
  with pytest.raises(UserError, match='losses.csv') as error:
    loss_traces.read(_file(tmp_path, text))
  assert message in str(error.value) and '\n' not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
  for path in (tmp_path / 'none.csv', tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
      loss_traces.read(str(path))


def test_one_long_name_does_not_widen_the_others(tmp_path):
  traces = loss_traces.read(_file(
      tmp_path, HEADER + ROWS + 'x' * 100000 + ',2,3,3,1\n'))
  assert len(traces.sample_id[-1]) == 100000
  assert traces.sample_id.nbytes < 1000


def test_too_few_examples_to_hold_some_out():
  traces = loss_traces.Traces(
      np.arange(50).astype(str), np.zeros(50, int), np.arange(50) // 49,
      np.zeros(50, int), np.arange(50.0))
  with pytest.raises(UserError, match='too few of the 50 examples'):
    loss_traces.training_set(traces, [0.5])


def test_other_columns_and_orders_do_not_matter(tmp_path):
  lines = ['loss,clean_label,who,noisy_label,epoch_percent,sample_id']
  lines += [f'{k}.5,1,me,{k % 2},100,{k}' for k in range(10)]
  traces = loss_traces.read(_file(  # With the byte order mark of Excel.
      tmp_path, '\ufeff' + '\n'.join(lines) + '\n\n'))
  np.testing.assert_array_equal(traces.loss, np.arange(10) + 0.5)
  np.testing.assert_array_equal(traces.epoch_percent, [99] * 10)
  np.testing.assert_array_equal(traces.v_star(), np.arange(10) % 2)


SIZES = [*range(2, 301), 512, 1024]


def _published_ranks(size, p):
  """Ranks of float32 percentiles p [N], as in tf.contrib.distributions."""
  percent = (np.asarray(p, np.float32) * np.float32(100)).astype(np.float64)
  # TensorFlow's graph optimizer multiplies by the reciprocal of 100.
  above = np.float64(1) - percent * np.reciprocal(np.float64(100))
  index = np.rint(np.float64(size - 1) * above).astype(np.int32)
  return np.clip(index, 0, size - 1)


def test_ranks_are_published():
  """All batch sizes and percentiles; 97 would differ in float64 alone."""
  percentiles = [k / 100 for k in range(101)]
  plain = []
  for size in SIZES:
    ranks = [loss_traces.rank_from_top(size, p) for p in percentiles]
    np.testing.assert_array_equal(ranks, _published_ranks(size, percentiles))
    plain += [(size, p) for p, rank in zip(percentiles, ranks)
              if rank != round((size - 1) * (1 - p))]
  assert len(plain) == 97
  assert not {25, 32, 64, 100, 128, 512, 1024} & {size for size, _ in plain}
  assert {(16, 0.7), (96, 0.7), (256, 0.7)} <= set(plain)
  losses = np.arange(16, dtype=np.float32)
  assert loss_traces.percentile(losses, 0.7) == 11
  with tf.Graph().as_default(), tf.Session() as session:
    assert session.run(mentor.percentile(tf.constant(losses), 0.7)) == 11


@pytest.mark.parametrize('size', [6, 16, 25, 96, 128, 256])
def test_ranks_in_a_session(size):
  """The published formula as a graph: the percentile comes from a table."""
  table = tf.constant([k / 100 for k in range(101)])
  with tf.Session(graph=table.graph) as session:
    at = tf.placeholder(tf.int32, [None])
    percent = tf.cast(tf.gather(table, at) * 100, tf.float64)
    index = tf.round(tf.cast(size - 1, tf.float64) * (1. - percent / 100.))
    ranks = session.run(index, {at: np.arange(101)})
  np.testing.assert_array_equal(
      ranks, [loss_traces.rank_from_top(size, k / 100) for k in range(101)])


@pytest.mark.skipif(not runtime.IS_1_15, reason='2.x has no contrib')
def test_ranks_of_the_published_function():
  from tensorflow.contrib import distributions
  table = tf.constant([k / 100 for k in range(101)])
  with tf.Session(graph=table.graph) as session:
    at, losses = tf.placeholder(tf.int32, []), tf.placeholder(tf.float32)
    value = distributions.percentile(losses, tf.gather(table, at) * 100)
    run = session.make_callable(value, [losses, at])
    # A constant, as in the threshold MentorNet, is divided.
    assert session.run(distributions.percentile(losses, 70),
                       {losses: np.arange(16)}) == 10
    for size in SIZES[::10]:
      below = np.arange(size, dtype=np.float32)
      assert [run(below, k) for k in range(101)] == [
          loss_traces.percentile(below, k / 100) for k in range(101)]


def test_percentile_is_that_of_the_mentornet():
  random = np.random.RandomState(0)
  for size in (1, 2, 7, 16, 32, 128):
    losses = random.randint(0, 9, size=size).astype(np.float32)
    for p in (0.0, 0.25, 0.5, 0.57, 0.7, 1.0):
      with tf.Graph().as_default(), tf.Session() as session:
        expected = session.run(
            mentor.percentile(tf.constant(losses), p))
      assert loss_traces.percentile(losses, p) == expected


def test_training_set(tmp_path):
  traces = loss_traces.read(_file(tmp_path, HEADER + ROWS))
  (features, v_star), (held_out, held_out_v) = loss_traces.training_set(
      traces, [0.0, 0.5], held_out=0.25, seed=1)
  # Three of twelve examples, at three percentages, for two percentiles.
  assert held_out.shape == (3 * 3 * 2, 4) and features.shape == (9 * 3 * 2, 4)
  assert features.dtype == v_star.dtype == np.float32
  points = np.concatenate([features, held_out])
  assert not points[:, 2].any()
  sample = lambda x: set(np.round(x[:, 0] * 10).astype(int) % 12)
  assert not sample(features) & sample(held_out)
  for percent in range(3):
    losses = np.arange(12 * percent, 12 * percent + 12) / 10
    at = points[points[:, 3] == percent]
    averages = np.unique(np.round(at[:, 0] - at[:, 1], 4))
    np.testing.assert_allclose(averages, [losses[0], losses[5]], atol=1e-4)
  rows = np.round(points[:, 0] * 10).astype(int)
  np.testing.assert_array_equal(np.concatenate([v_star, held_out_v]),
                                rows % 5 > 0)


def test_the_held_out_part_is_like_the_rest():
  """The labels were made wrong with the same seed."""
  clean = np.arange(1000) % 10
  noisy = noise.corrupt(clean, 0.4, noise.SYMMETRIC_OTHERS, 10, seed=0)
  traces = loss_traces.Traces(
      np.arange(1000).astype(str), 0 * clean, noisy, clean,
      1.0 * clean)
  for _, v_star in loss_traces.training_set(traces, [0.5], 0.2, seed=0):
    assert abs(v_star.mean() - 0.6) < 0.08


def test_training_set_follows_its_seed_and_knows_rows_without_a_name():
  traces = loss_traces.Traces(
      np.array([''] * 40), np.arange(40) % 4, np.arange(40) % 2,
      np.zeros(40, int), np.arange(40.0))
  draw = lambda seed: loss_traces.training_set(traces, [0.5], 0.2, seed)
  (first, _), (held_out, _) = draw(3)
  assert len(first) == 32 and len(held_out) == 8
  np.testing.assert_array_equal(first, draw(3)[0][0])
  assert (first != draw(4)[0][0]).any()
