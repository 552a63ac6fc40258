"""Who takes part in a training run on several machines, and whether they answer.

    ps          keeps the variables; any number of them shares them out
    worker      computes steps; worker 0, or the job `chief`, also writes
                checkpoints, and is called the chief
    evaluator   evaluates the checkpoints; nobody needs to reach it

They find each other by host lists on the command line, or by the environment
variable TF_CONFIG as TensorFlow's own programs do. No TensorFlow here.
"""
import collections
import json
import re
import socket
import threading
import time

from mentormix import command
from mentormix.command import log
from mentormix.command import UserError

TF_CONFIG = 'TF_CONFIG'
CHIEF, WORKER, PS, EVALUATOR = JOBS = 'chief', 'worker', 'ps', 'evaluator'
_ADDRESS = re.compile(r'(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$')
_HINT = 'write host:port,host:port'

_CONNECT_SECS = 2  # For an answer.
_LOOK_SECS = 2  # Between two looks at the others,
_PAUSE_SECS = 0.5  # and while there is nothing else to do.
_SAY_AFTER_SECS = 5  # Out of reach for less is no news.
_SAY_SECS = 60  # Between two lines while somebody stays out of reach.


class Cluster(collections.namedtuple('Cluster', 'jobs job task')):
  """The tasks of a run, and which of them this process is.

  Attributes:
    jobs: job -> tuple of addresses host:port, of `ps`, `worker` and maybe
      `chief`; empty for training in a single process.
    job: this process's, one of `JOBS`.
    task: its index in the job.
  """
  __slots__ = ()

  @property
  def workers(self):
    """Addresses of all that compute, the chief first."""
    return self.jobs.get(CHIEF, ()) + self.jobs.get(WORKER, ())

  @property
  def num_workers(self):
    return max(1, len(self.workers))

  @property
  def worker(self):
    """Index of this process among `workers`."""
    return self.task + (self.job == WORKER and CHIEF in self.jobs)

  @property
  def is_chief(self):
    return self.job in (CHIEF, WORKER) and self.worker == 0

  @property
  def address(self):
    """Of this process."""
    return self.jobs[self.job][self.task]

  @property
  def device(self):
    """Of this process, for what is computed here; '' without a cluster."""
    return '/job:%s/task:%d' % (self.job, self.task) if self.jobs else ''

  def needed(self):
    """Name -> address of the others that this process cannot do without."""
    needed = collections.OrderedDict()
    if self.jobs and not self.is_chief:
      needed['the chief'] = self.workers[0]
    if self.jobs and self.job != PS:
      needed.update(('ps %d' % k, address)
                    for k, address in enumerate(self.jobs[PS]))
    return needed

  def helpers(self):
    """Name -> address of those that the chief shares the computing with."""
    return collections.OrderedDict(
        ('worker %d' % (k - (CHIEF in self.jobs)), address)
        for k, address in enumerate(self.workers) if k)


ALONE = Cluster({}, WORKER, 0)


def find(config, environment):
  """The `Cluster` that the flags or the environment describe.

  Args:
    config: a `config.TrainConfig`.
    environment: name -> value, as os.environ.

  Returns:
    `ALONE` where neither names one.

  Raises:
    UserError: what they say is no cluster with this process in it.
  """
  text = environment.get(TF_CONFIG, '')
  flags = [name for name in ('ps_hosts', 'worker_hosts', 'job_name')
           if getattr(config, name)]
  if flags and text:
    raise UserError('--%s and the environment variable %s both describe a '
                    'cluster; give one of them' % (flags[0], TF_CONFIG))
  if flags or text:
    for name in ('master', 'ps_tasks'):
      if getattr(config, name):
        raise UserError(
            '--%s=%s is for servers that run already, %s for those that this '
            'command starts; give one of them' % (
                name, getattr(config, name),
                '--' + flags[0] if flags else TF_CONFIG))
  if text and config.task:
    raise UserError('--task=%d: the environment variable %s says which task '
                    'this is' % (config.task, TF_CONFIG))
  if flags:
    found = _from_flags(config)
  elif text:
    found = _from_tf_config(text)
  else:  # Servers that run already may have several clients.
    return ALONE._replace(task=config.task)
  if found.jobs and found.job != EVALUATOR:
    _check(found)
  return found


def _from_flags(config):
  if config.job_name not in (WORKER, PS, EVALUATOR):
    raise UserError('--job_name=%s must be worker, ps or evaluator' %
                    config.job_name)
  jobs = {}
  for job, flag in ((PS, 'ps_hosts'), (WORKER, 'worker_hosts')):
    value = getattr(config, flag)
    if not value:
      if config.job_name == EVALUATOR:  # It needs to reach nobody.
        continue
      raise UserError('--%s= must be given with --job_name=%s: %s'
                      % (flag, config.job_name, _HINT))
    jobs[job] = _addresses('--%s=%s' % (flag, value), value.split(','))
  if config.job_name != EVALUATOR and config.task >= len(jobs[config.job_name]):
    raise UserError('--task=%d must be below %d, the number of --%s_hosts' % (
        config.task, len(jobs[config.job_name]), config.job_name))
  return Cluster(jobs, config.job_name, config.task)


def _from_tf_config(text):
  """As TensorFlow's programs read it: {"cluster": {job: [address]}, "task":
  {"type": job, "index": k}}."""
  what = 'the environment variable %s' % TF_CONFIG

  def bad(why):
    return UserError('%s %s; unset it, or see README.md' % (what, why))

  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise bad('is no JSON (%s)' % error)
  if not isinstance(value, dict):
    raise bad('is no JSON object')
  jobs, task = value.get('cluster') or {}, value.get('task') or {}
  if not isinstance(jobs, dict) or not isinstance(task, dict):
    raise bad('needs objects as cluster and task')
  job, index = task.get('type', WORKER), task.get('index', 0)
  if job not in JOBS or type(index) is not int or index < 0:  # pylint: disable=unidiomatic-typecheck
    raise bad('has the task %s; its type is one of %s, its index a number from '
              '0' % (json.dumps(task), ', '.join(JOBS)))
  unknown = set(jobs) - set(JOBS)
  if unknown:
    raise bad('has the job %s; those known are %s'
              % (min(unknown), ', '.join(JOBS)))
  found = {}
  for name, addresses in jobs.items():
    if not isinstance(addresses, list) or not all(
        isinstance(address, str) for address in addresses):
      raise bad('has %s, which is no list of host:port'
                % json.dumps({name: addresses}))
    if addresses and name != EVALUATOR:
      found[name] = _addresses('%s of %s' % (name, what), addresses)
  if len(found.get(CHIEF, ())) > 1:
    raise bad('has more than one chief')
  if job != EVALUATOR and (found or job == PS) and index >= len(found.get(job, ())):
    raise bad('has %d addresses of %s, so none for task %d'
              % (len(found.get(job, ())), job, index))
  if job in (CHIEF, WORKER) and PS not in found and len(sum(
      found.values(), ())) < 2:
    return ALONE
  return Cluster(found, job, index)


def _addresses(what, values):
  for value in values:
    match = _ADDRESS.match(value)
    if not match or not 0 < int(match.group(2)) < 65536:
      raise UserError('%s: %r is no address; %s' % (what, value, _HINT))
  return tuple(values)


def _check(cluster):
  """Raises UserError unless the jobs are those of a run."""
  every = sum(cluster.jobs.values(), ())
  if not cluster.jobs.get(PS):
    raise UserError('a cluster of %d workers needs a ps, which keeps the '
                    'variables' % len(every))
  if not cluster.workers:
    raise UserError('a cluster needs a worker')
  for address, count in collections.Counter(every).items():
    if count > 1:
      raise UserError('%s stands for two tasks of the cluster; give each its '
                      'own port' % address)


def split(address):
  """(host, port) of host:port; the host of IPv6 without its brackets."""
  host, _, port = address.rpartition(':')
  return host.strip('[]'), int(port)


def answers(address):
  """Whether somebody listens at host:port."""
  try:
    socket.create_connection(split(address), timeout=_CONNECT_SECS).close()
    return True
  except (OSError, UnicodeError):  # The latter of a host such as a..b.
    return False


class Watch(object):
  """Looks after the tasks that this one needs, from a thread of its own.

  TensorFlow waits for a server that is gone for ever, and says nothing. This
  says who does not answer, and ends the process when that takes too long; so it
  does if no step is finished for as long.
  """

  def __init__(self, cluster, timeout, is_sync=False):
    """Starts watching.

    Args:
      cluster: a `Cluster`.
      timeout: seconds to wait for a task, or for a step after `wait`; 0: for
        ever.
      is_sync: whether a step takes every worker.
    """
    self._needed = cluster.needed()
    # Who is missing is for one to say.
    self._helpers = cluster.helpers() if is_sync and cluster.is_chief else {}
    self._said_helpers = -float('inf')  # When.
    self._timeout = timeout
    self._lost = {}  # Name -> since when.
    self._said = {}  # Name -> when.
    self._stepped = None  # When, once there can be steps.
    self._ended = threading.Event()
    thread = threading.Thread(target=self._run)
    thread.daemon = True
    thread.start()

  def _run(self):
    while not self._ended.wait(_LOOK_SECS):
      self._look()
      self._look_for_helpers(time.monotonic())
      if self._timeout and not self._ended.is_set():
        self._check_patience(time.monotonic())

  def _check_patience(self, now):
    lost = sorted(name for name, since in self._lost.items()
                  if now - since >= self._timeout)
    why = ' and '.join('%s at %s' % (name, self._needed[name])
                       for name in lost)
    if self._lost and self._stepped:
      self._stepped = now  # Which takes its time afterwards.
    if lost:
      why += ' did not answer for %d seconds' % self._timeout
    elif self._stepped and now - self._stepped >= self._timeout:
      why = 'no step was finished for %d seconds%s' % (
          self._timeout, self._absent())
    if why:
      command.abort('%s (--cluster_timeout); start what is missing, then this '
                    'command again: training goes on from the last checkpoint'
                    % why)

  def _look(self):
    """Notes who answers and who does not; says so when it is news."""
    for name, address in self._needed.items():
      now = time.monotonic()
      if answers(address):
        if name in self._said:
          log('%s at %s answers' % (name, address))
        self._lost.pop(name, None)
        self._said.pop(name, None)
        continue
      since = self._lost.setdefault(name, now)
      if now - since >= _SAY_AFTER_SECS and (
          now - self._said.get(name, -float('inf')) >= _SAY_SECS):
        self._said[name] = now
        log('waiting for %s at %s%s' % (
            name, address, ', %d seconds at most' % (
                self._timeout - (now - since)) if self._timeout else ''))

  def _look_for_helpers(self, now):
    """Says which workers a step has been waiting for."""
    if self._helpers and self._stepped and _SAY_SECS <= min(
        now - self._stepped, now - self._said_helpers):
      absent = self._absent()
      if absent:
        self._said_helpers = now
        log('no step for %d seconds%s' % (now - self._stepped, absent))

  def _absent(self):
    """Part of a line: the workers that do not answer, if any."""
    return ''.join(', %s at %s does not answer' % (name, address)
                   for name, address in self._helpers.items()
                   if not answers(address))

  def stepped(self):
    """To be told of every step."""
    self._stepped = time.monotonic()

  def wait(self, is_stopped):
    """Returns once every task that this one needs has answered.

    Args:
      is_stopped: a callable, whether to return all the same.
    """
    missing = list(self._needed.values())
    while missing and not is_stopped():
      missing = [address for address in missing if not answers(address)]
      if missing:
        time.sleep(_PAUSE_SECS)
    self.stepped()

  def wait_until_gone(self, addresses, is_stopped):
    """Returns when nobody listens at these any more, or after the timeout.

    Args:
      addresses: of tasks.
      is_stopped: as for `wait`.
    """
    until = time.monotonic() + (self._timeout or float('inf'))
    while any(map(answers, addresses)) and not is_stopped():
      self.stepped()  # There are none to come.
      if time.monotonic() >= until:
        log('a worker did not end for %d seconds; it is not waited for'
            % self._timeout)
        return
      time.sleep(_PAUSE_SECS)

  def end(self):
    """Watches no more."""
    self._ended.set()

