"""The hook that synchronous training needs in each worker."""
import contextlib
import os
import signal
import threading

from mentormix.runtime import tf


class SyncHook(tf.train.SessionRunHook):
  """What the session of synchronous training needs.

  It does what the hook of tf.train.SyncReplicasOptimizer does, but the thread
  that takes the steps ends with the session. TensorFlow waits two minutes for
  that thread, and prints a stack. The optimizer must have been applied.
  """

  def __init__(self, optimizer, cluster):
    self._is_chief = cluster.is_chief
    self._initialize = (optimizer.chief_init_op if cluster.is_chief
                        else optimizer.local_step_init_op)
    # Each token lets one worker continue with its next step.
    self._release = optimizer.get_init_tokens_op(cluster.num_workers)
    self._take_step, = optimizer.get_chief_queue_runner().enqueue_ops
    with tf.device(tf.train.get_global_step().device):
      mark = tf.Variable(True, trainable=False, collections=[],
                         name='has_had_a_chief')
    self._has_had_a_chief, self._mark = mark.is_initialized(), mark.initializer

  def after_create_session(self, session, coord):
    session.run(self._initialize)
    if not self._is_chief:
      return
    # A worker takes its first step without a token. A chief that dies may take
    # tokens with it, so its successor adds some. Needless tokens would let one
    # worker take the part of another in a step.
    if session.run(self._has_had_a_chief):
      session.run(self._release)
    session.run(self._mark)
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent)
    for target, more in (self._take_steps, ()), (self._wake, (received,)):
      threading.Thread(target=target, args=(session, coord) + more,
                       daemon=True).start()

  def _wake(self, session, coord, received):
    """Lets the chief stop waiting for other workers when a signal comes.

    Python handles signals between two operations; waiting is one operation that
    may last forever.
    """
    while True:
      number, = os.read(received, 1)
      if coord.should_stop():
        return
      if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
          session.run(self._release)

  def _take_steps(self, session, coord):
    """Takes a step whenever the gradients of all workers have come."""
    try:
      while not coord.should_stop():
        session.run(self._take_step)
    except Exception as error:
      if not coord.should_stop():
        coord.request_stop(error)

  def end(self, session):
    if self._is_chief:  # So that no worker still waits.
      session.run(self._release)
