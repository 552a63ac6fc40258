"""Writes summaries for TensorBoard; each is on disk before training continues.

FileWriter writes from a background thread. When the disk fills, that thread
dies silently and training continues without summaries. Here it is an error.
"""
import os
import socket
import time

from mentormix.runtime import tf


class Writer:
  """Writes a new file of events; raises a tf.errors.OpError if it cannot."""

  def __init__(self, directory):
    name = (f'events.out.tfevents.{int(time.time()):010d}.'
            f'{socket.gethostname()}.{os.getpid()}')
    self._file = tf.python_io.TFRecordWriter(os.path.join(directory, name))
    self._write(file_version='brain.Event:2')

  def add_summary(self, summary, step):
    """Adds a tf.Summary, or one that a summary operation has serialized."""
    if isinstance(summary, bytes):
      summary = tf.Summary.FromString(summary)
    self._write(summary=summary, step=step)

  def add_start(self, step):
    """Marks that a session starts at this step.

    TensorBoard then drops what earlier files of the directory have from this
    step on: a killed run repeats the steps after its last checkpoint.
    """
    self._write(step=step, session_log=tf.SessionLog(
        status=tf.SessionLog.START))

  def add_graph(self, graph):
    """Adds a tf.Graph, for TensorBoard to show."""
    definition = graph.as_graph_def(add_shapes=True)
    self._write(graph_def=definition.SerializeToString())

  def _write(self, **event):
    event = tf.Event(wall_time=time.time(), **event)
    self._file.write(event.SerializeToString())
    self._file.flush()

  def close(self):
    self._file.close()
