"""What this process is in a training run: its server, its watch, its signals.

Training in a single process has no server and waits for nobody; every method
then does nothing, or what TensorFlow does by default.
"""
import os

from mentormix import signals as signals_lib
from mentormix.cluster import roles
from mentormix.cluster import servers
from mentormix.runtime import tf


class Task:
  """One task of a run, which may be its only one; it is a worker."""

  def __init__(self, config, cluster=roles.ALONE):
    self.cluster = cluster
    self.signals = signals_lib.Signals()
    self._config = config
    self._server = self._watch = None

  @property
  def is_chief(self):
    """Whether this task writes checkpoints."""
    return self.cluster.is_chief

  @property
  def placement(self):
    """A device function, see `servers.placement`."""
    return servers.placement(self.cluster, self._config)

  @property
  def device(self):
    """Where this task computes; '' in a single process."""
    return servers.device(self.cluster, self._config)

  def start(self):
    """Starts the server, so that other tasks can see this one."""
    if self.cluster.jobs:
      self._server, self._watch = servers.start(self.cluster, self._config)

  def install_signals(self):
    """Notes signals while this task may have to wait for others."""
    if self._server:
      self.signals.install()

  def hooks(self, agreed):
    """Hooks that compare settings with the chief, and tell the watch of steps.

    Args:
      agreed: name -> value of what all tasks must have in common.
    """
    return [servers.AgreementHook(self.cluster, agreed, self._is_stopped),
            _WatchHook(self._watch)]

  def session(self, scaffold, hooks):
    """Opens a session that runs steps; servers.Stopped if a signal came."""
    settings = servers.session_config(self.cluster, self._config)
    directory = os.path.abspath(self._config.train_log_dir)
    if not self._server:
      return tf.train.MonitoredTrainingSession(
          master=self._config.master, is_chief=self.is_chief,
          checkpoint_dir=directory, scaffold=scaffold, hooks=hooks,
          save_checkpoint_secs=None, save_summaries_steps=None,
          save_summaries_secs=None, log_step_count_steps=None, config=settings)
    return tf.train.MonitoredSession(servers.SessionCreator(
        self.cluster, self._watch, self._server.target, settings, directory,
        scaffold, self._is_stopped), hooks)

  def wait_for_workers(self):
    """Returns when no other worker trains any more."""
    if self._watch:
      self._watch.wait_until_gone(self.cluster.workers[1:], self._is_stopped)

  def end(self):
    """Tells the servers that training has ended; only the chief does."""
    if self._server and self.is_chief:
      self._watch.end()
      servers.end(self.cluster, self._config, self._server)

  def _is_stopped(self):
    return self.signals.stopped_by is not None


class _WatchHook(tf.train.SessionRunHook):
  """Tells a `watch.Watch` of steps."""

  def __init__(self, watch):
    self._watch = watch

  def after_run(self, run_context, run_values):
    self._watch.stepped()
