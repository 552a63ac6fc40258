"""Event files: read back, and never lost without a word."""
import os

import pytest
from tensorboard.backend.event_processing import event_accumulator

from mentormix import summaries
from mentormix import testing
from mentormix.runtime import tf


def _scalar(value):
  return tf.Summary(value=[tf.Summary.Value(tag='loss', simple_value=value)])


def test_what_is_written_can_be_read_at_once(tmp_path):
  writer = summaries.Writer(str(tmp_path))
  with tf.Graph().as_default() as graph:
    tf.constant(1, name='one')
  writer.add_graph(graph)
  writer.add_summary(_scalar(0.5), 7)
  writer.add_summary(_scalar(0.25).SerializeToString(), 8)
  name, = os.listdir(str(tmp_path))
  assert name.startswith('events.out.tfevents.')
  events = list(tf.train.summary_iterator(str(tmp_path / name)))
  assert events[0].file_version == 'brain.Event:2'
  node, = tf.GraphDef.FromString(events[1].graph_def).node
  assert node.name == 'one'
  assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value)
          for e in events[2:]] == [(7, 'loss', 0.5), (8, 'loss', 0.25)]
  writer.close()


def test_tensorboard_drops_what_a_resumed_run_repeats(tmp_path, monkeypatch):
  for start, steps in ((0, (100, 228, 295, 339)), (226, (227, 228, 300))):
    monkeypatch.setattr(summaries.time, 'time', lambda start=start: 1e9 + start)
    writer = summaries.Writer(str(tmp_path))
    writer.add_start(start)
    for step in steps:
      writer.add_summary(_scalar(step), step)
    writer.close()
  reader = event_accumulator.EventAccumulator(str(tmp_path))
  reader.Reload()
  assert [event.step for event in reader.Scalars('loss')] == [
      100, 227, 228, 300]


@pytest.fixture
def small_disk():
  with testing.small_disk() as directory:
    yield directory


def test_a_full_disk_is_an_error_at_once(small_disk):
  writer = summaries.Writer(small_disk)
  testing.fill_disk(small_disk)
  with pytest.raises(tf.errors.OpError, match='No space left'):
    for step in range(1000):
      writer.add_summary(_scalar(1.0), step)
