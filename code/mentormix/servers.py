"""TensorFlow's side of a cluster: servers, placement, sessions, and the end.

    server, watch = servers.start(cluster, config)      # Of this task.
    with tf.device(servers.placement(cluster, config)):   # Variables: to the ps.
      ...
    servers.end(cluster, config, server)     # The chief, when all is done.
"""
import contextlib
import json
import time

from mentormix import cluster as cluster_lib
from mentormix import listening
from mentormix import runtime
from mentormix.command import log
from mentormix.command import UserError
from mentormix.runtime import tf

_POLL_SECS = 0.5
_TELL_SECS = 30  # For a ps that is just being started again.
_PS_DEVICE = '/job:ps/task:%d/cpu:0'


class Stopped(Exception):
  """A signal came while there was no session."""


def start(cluster, config):
  """Starts the server of this task.

  Args:
    cluster: a `cluster.Cluster` with jobs.
    config: a `config.TrainConfig`.

  Returns:
    (server, watch): a tf.train.Server, which listens on --bind_address only,
    by default on the address that the cluster knows this task by; and a
    `cluster.Watch` over the tasks that this one needs.

  Raises:
    UserError: that address is not of this machine, or is in use.
  """
  host, port = cluster_lib.split(cluster.address)
  address = listening.resolve(config.bind_address or host)
  where = ('--bind_address=%s' % config.bind_address if config.bind_address
           else '%s, the address of %s %d,' % (cluster.address, cluster.job,
                                               cluster.task))
  if not config.bind_address and listening.is_loopback(address) and not all(
      listening.is_loopback(cluster_lib.split(other)[0])
      for other in sum(cluster.jobs.values(), ())):
    raise UserError('%s is %s on this machine, where others cannot reach it; '
                    'give --bind_address=ADDRESS' % (where, address))
  listening.check_free(address, port, where)
  try:
    with listening.only_on(address, port):
      server = tf.train.Server(
          {job: list(addresses) for job, addresses in cluster.jobs.items()},
          cluster.job, cluster.task,
          config=session_config(cluster, config))
  except tf.errors.OpError as error:
    raise UserError('%s, port %d, cannot be listened at (%s)' % (
        where, port, runtime.reason(error)))
  log('%s %d listens at %s, port %d; workers: %d, servers: %d' % (
      cluster.job, cluster.task, address, port, cluster.num_workers,
      len(cluster.jobs[cluster_lib.PS])))
  return server, cluster_lib.Watch(cluster, config.cluster_timeout,
                                   config.sync_replicas)


def session_config(cluster, config):
  """As `runtime.session_config`; this task talks to the ps only.

  Without that, a worker that is gone would keep others from starting.
  """
  settings = runtime.session_config(config.precision, config.xla)
  if cluster.jobs:
    own = '/job:%s/task:%d' % (cluster.job, cluster.task)
    settings.device_filters.extend(
        [own] if cluster.job == cluster_lib.PS else ['/job:ps', own])
  return settings


def placement(cluster, config):
  """A device function: variables to the servers, the rest to this task.

  Every task of a run places alike, since all build the same graph.

  Args:
    cluster: a `cluster.Cluster`.
    config: a `config.TrainConfig`; with --master, its --ps_tasks count.
  """
  num_servers = len(cluster.jobs.get(cluster_lib.PS, ())) or config.ps_tasks
  return tf.train.replica_device_setter(
      num_servers, worker_device=device(cluster, config),
      ps_strategy=_Balanced(num_servers))


def device(cluster, config):
  """Of what this task computes; '' where there is but one."""
  if config.ps_tasks:
    return '/job:worker/task:%d' % config.task
  return cluster.device


class _Balanced(object):
  """Gives each variable to the server that has the fewest bytes so far."""

  def __init__(self, num_servers):
    self._bytes = [0] * num_servers

  def __call__(self, op):
    least = min(range(len(self._bytes)), key=self._bytes.__getitem__)
    # These go where their variable is, whatever is said here.
    if not op.name.endswith(('/Momentum', '/ExponentialMovingAverage')):
      shape = tf.TensorShape(op.get_attr('shape'))
      self._bytes[least] += shape.num_elements() * op.get_attr('dtype').size
    return least


class SessionCreator(tf.train.SessionCreator):
  """Opens sessions, the first and those after a server was gone.

  As those that tf.train.MonitoredTrainingSession takes, except that it waits
  for the other tasks where a signal can be heard, and looks every second, not
  every 30, whether the chief has set the variables.
  """

  def __init__(self, cluster, watch, target, settings, directory, scaffold,
               is_stopped):
    """Creates the creator.

    Args:
      cluster: a `cluster.Cluster`.
      watch: a `cluster.Watch`.
      target: of this task's server.
      settings: of `session_config`.
      directory: where checkpoints are, for the chief.
      scaffold: a tf.train.Scaffold.
      is_stopped: a callable, whether a signal has ended the run.
    """
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
  """Ends a task that trains something else than the chief does."""

  def __init__(self, cluster, settings, is_stopped):
    """Creates the hook.

    Args:
      cluster: a `cluster.Cluster`.
      settings: name -> value of what has to be the same, as JSON has it.
      is_stopped: a callable, whether a signal has ended the run.
    """
    self._cluster = cluster
    self._settings = settings
    self._is_stopped = is_stopped

  def begin(self):
    # In no collection: no checkpoint holds it, no session waits for it.
    with tf.device(_PS_DEVICE % 0):
      theirs = tf.Variable('', trainable=False, collections=[],
                           name='settings_of_the_chief')
    self._ours = tf.placeholder(tf.string, [])
    self._publish = theirs.assign(self._ours).op
    self._read = tf.cond(theirs.is_initialized(), theirs.read_value,
                         lambda: tf.constant(''))

  def end(self, session):
    # The next one may have others.
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
    theirs = json.loads(theirs.decode())
    differing = ['%s is %s there, %s here' % (
        name, theirs.get(name), self._settings.get(name))
                 for name in sorted(set(theirs) | set(self._settings))
                 if theirs.get(name) != self._settings.get(name)]
    if differing:
      raise UserError('%s %d trains something else than the chief: %s; give '
                      'all tasks the same flags and data' % (
                          self._cluster.job, self._cluster.task,
                          ', '.join(differing)))


def _end_queue(task):
  """A queue on ps `task`, to which the chief adds once training has ended."""
  with tf.device(_PS_DEVICE % task):
    return tf.FIFOQueue(100, [tf.bool], [[]], shared_name='end_of_training')


def serve(cluster, config):
  """What a ps does: it holds variables until the chief says that it is over.

  Args:
    cluster: a `cluster.Cluster`.
    config: a `config.TrainConfig`.

  Raises:
    UserError: its address is not of this machine, or is in use.
  """
  runtime.select_device('')
  server, watch = start(cluster, config)
  with tf.Graph().as_default():
    told = _end_queue(cluster.task).size()
    with tf.Session(server.target,
                    config=session_config(cluster, config)) as session:
      while not session.run(told):
        time.sleep(_POLL_SECS)
  watch.end()
  time.sleep(_POLL_SECS)  # The chief is still to have its answer.
  log('training has ended')


def end(cluster, config, server):
  """Tells every ps that training has ended; says so of those out of reach.

  Args:
    cluster: a `cluster.Cluster`; of the chief.
    config: a `config.TrainConfig`.
    server: its tf.train.Server.
  """
  until = time.monotonic() + _TELL_SECS
  untold = dict(enumerate(cluster.jobs[cluster_lib.PS]))
  while untold and time.monotonic() < until:
    for task in [t for t, address in untold.items()
                 if cluster_lib.answers(address)]:
      settings = session_config(cluster, config)
      settings.device_filters[0] = '/job:ps/task:%d' % task
      with contextlib.suppress(tf.errors.OpError), tf.Graph().as_default():
        tell = _end_queue(task).enqueue([True])
        with tf.Session(server.target, config=settings) as session:
          session.run(tell)
        del untold[task]
    time.sleep(_POLL_SECS if untold else 0)
  for task, address in untold.items():
    log('ps %d at %s does not answer; if it runs, it does not know that training '
        'has ended' % (task, address))
