"""TensorFlow's side of a cluster: servers, placement, sessions, and the end.

Below, `cluster` is a `roles.Cluster` and `config` a `config.TrainConfig`.
"""
import contextlib
import json
import socket
import time

from mentormix import runtime
from mentormix.cluster import roles
from mentormix.cluster import watch as watch_lib
from mentormix.messages import log, UserError
from mentormix.runtime import tf

_POLL_SECS = 0.5
_TELL_SECS = 30  # How long `end` waits for a ps that is being started.


class Stopped(Exception):
  """A signal came while there was no session."""


def start(cluster, config):
  """Starts the server of this task; the cluster must have jobs.

  Returns:
    (server, watch): a tf.train.Server, and a `watch.Watch` over the tasks that
    this one needs.

  Raises:
    UserError: others could reach the server, and the user did not allow that;
      or its port is in use.
  """
  roles.check_exposure(config.listen_on_all_interfaces)
  _, port = watch_lib.split(cluster.address)
  name = f'{cluster.job} {cluster.task}'
  try:
    with socket.socket() as probe:  # TensorFlow's own error gives no reason.
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(('', port))
    server = tf.train.Server(
        {job: list(addresses) for job, addresses in cluster.jobs.items()},
        cluster.job, cluster.task, config=session_config(cluster, config))
  except (OSError, tf.errors.OpError) as error:
    raise UserError(f'{name} cannot listen on port {port} '
                    f'({runtime.reason(error)}); stop what uses it, or give '
                    'the task another port')
  log(f'{name} listens on port {port}; workers: {cluster.num_workers}, '
      f'servers: {len(cluster.jobs[roles.PS])}')
  return server, watch_lib.Watch(cluster, config.cluster_timeout,
                                 config.sync_replicas)


def session_config(cluster, config):
  """As `runtime.session_config`, but this task talks to the servers only.

  Otherwise a missing worker would keep the others from starting.
  """
  settings = runtime.session_config(config.precision, config.xla)
  if cluster.jobs:
    if cluster.job != roles.PS:
      settings.device_filters.append('/job:ps')
    settings.device_filters.append(cluster.device)
  return settings


def placement(cluster, config):
  """A device function: variables go to the servers, the rest to this task.

  All tasks of a run build the same graph, so they place it in the same way.
  With --master, --ps_tasks is the number of servers.
  """
  num_servers = len(cluster.jobs.get(roles.PS, ())) or config.ps_tasks
  held = [0] * num_servers  # Bytes of the variables on each server.

  def least_loaded(op):
    server = held.index(min(held))
    # TensorFlow puts these beside their variable, whatever this returns.
    if not op.name.endswith(('/Momentum', '/ExponentialMovingAverage')):
      shape = tf.TensorShape(op.get_attr('shape'))
      held[server] += shape.num_elements() * op.get_attr('dtype').size
    return server

  return tf.train.replica_device_setter(
      num_servers, worker_device=device(cluster, config),
      ps_strategy=least_loaded)


def device(cluster, config):
  """Where this task computes; '' for training in a single process."""
  if config.ps_tasks:
    return f'/job:worker/task:{config.task}'
  return cluster.device


class SessionCreator(tf.train.SessionCreator):
  """Opens sessions: the first one, and one after each loss of a server.

  Unlike the creators of tf.train.MonitoredTrainingSession, it handles signals
  (`is_stopped`) while it waits for other tasks, and checks every second, not
  every 30, whether the chief has initialized the variables.
  """

  def __init__(self, cluster, watch, target, settings, directory, scaffold,
               is_stopped):
    self._cluster = cluster
    self._watch = watch
    self._target = target
    self._settings = settings
    self._directory = directory
    self._scaffold = scaffold
    self._is_stopped = is_stopped

  def create_session(self):
    self._watch.wait(self._is_stopped)
    if self._is_stopped():
      raise Stopped
    if self._cluster.is_chief:
      return tf.train.ChiefSessionCreator(
          self._scaffold, self._target, self._settings,
          self._directory).create_session()
    self._scaffold.finalize()
    return tf.train.SessionManager(
        local_init_op=self._scaffold.local_init_op,
        ready_op=self._scaffold.ready_op,
        ready_for_local_init_op=self._scaffold.ready_for_local_init_op,
        graph=tf.get_default_graph(), recovery_wait_secs=1).wait_for_session(
            self._target, self._settings, max_wait_secs=float('inf'))


class AgreementHook(tf.train.SessionRunHook):
  """Ends a task whose settings, as JSON has them, differ from the chief's."""

  def __init__(self, cluster, settings, is_stopped):
    self._cluster = cluster
    self._settings = settings
    self._is_stopped = is_stopped

  def begin(self):
    # In no collection: no checkpoint holds it, no session waits for it.
    with tf.device('/job:ps/task:0/cpu:0'):
      theirs = tf.Variable('', trainable=False, collections=[],
                           name='settings_of_the_chief')
    self._ours = tf.placeholder(tf.string, [])
    self._publish = theirs.assign(self._ours).op
    self._read = tf.cond(theirs.is_initialized(), theirs.read_value,
                         lambda: tf.constant(''))

  def end(self, session):
    # The next chief may have other settings.
    if self._cluster.is_chief and self._is_stopped():
      session.run(self._publish, {self._ours: ''})

  def after_create_session(self, session, coord):
    if self._cluster.is_chief:
      session.run(self._publish, {self._ours: json.dumps(self._settings)})
      return
    theirs = session.run(self._read)
    while not theirs:
      if self._is_stopped():
        raise Stopped
      time.sleep(_POLL_SECS)
      theirs = session.run(self._read)
    differing = differences(json.loads(theirs.decode()), self._settings)
    if differing:
      raise UserError(f'{self._cluster.job} {self._cluster.task} trains '
                      f'something else than the chief: {differing}; give all '
                      'tasks the same flags and data')


def differences(theirs, ours):
  """Says which settings, name -> value, of two tasks differ; '' if none do."""
  return ', '.join(
      f'{name} is {theirs.get(name)} there, {ours.get(name)} here'
      for name in sorted(set(theirs) | set(ours))
      if theirs.get(name) != ours.get(name))


def _end_queue(task):
  """A queue on ps `task`; the chief adds to it once training has ended."""
  with tf.device(f'/job:ps/task:{task}/cpu:0'):
    return tf.FIFOQueue(100, [tf.bool], [[]], shared_name='end_of_training')


def serve(cluster, config):
  """Runs a ps, which holds variables until the chief ends the training."""
  runtime.select_device('')
  server, watch = start(cluster, config)
  with tf.Graph().as_default():
    told = _end_queue(cluster.task).size()
    with tf.Session(server.target,
                    config=session_config(cluster, config)) as session:
      while not session.run(told):
        time.sleep(_POLL_SECS)
  watch.end()
  time.sleep(_POLL_SECS)  # The chief has to get its answer first.
  log('training has ended')


def end(cluster, config, server):
  """Tells every ps that training has ended; reports those out of reach.

  The chief calls this with its tf.train.Server.
  """
  until = time.monotonic() + _TELL_SECS
  for task, address in enumerate(cluster.jobs[roles.PS]):
    while not watch_lib.answers(address) and time.monotonic() < until:
      time.sleep(_POLL_SECS)
    if not watch_lib.answers(address):
      log(f'ps {task} at {address} does not answer; if it runs, it does not '
          'know that training has ended')
      continue
    settings = session_config(cluster, config)
    settings.device_filters[0] = f'/job:ps/task:{task}'
    with contextlib.suppress(tf.errors.OpError), tf.Graph().as_default():
      tell = _end_queue(task).enqueue([True])
      with tf.Session(server.target, config=settings) as session:
        session.run(tell)
