"""Who takes part in a training run on several machines, and who answers.

    ps          keeps the variables; several of them share them out
    worker      computes steps; worker 0, or the job `chief`, also writes the
                checkpoints and is called the chief
    evaluator   evaluates the checkpoints; nobody needs to reach it

Tasks find each other by host lists on the command line, or by the environment
variable TF_CONFIG, as TensorFlow's own programs do. No TensorFlow here.
"""
import collections
import json
import re
import socket
import threading
import time
import typing

from mentormix import command
from mentormix.command import log
from mentormix.command import UserError

TF_CONFIG = 'TF_CONFIG'
CHIEF, WORKER, PS, EVALUATOR = JOBS = 'chief', 'worker', 'ps', 'evaluator'
_ADDRESS = re.compile(r'(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$')
_HINT = 'write host:port,host:port'

_CONNECT_SECS = 2  # How long to wait for a connection.
_LOOK_SECS = 2  # Between two looks at the other tasks,
_PAUSE_SECS = 0.5  # and while there is nothing else to do.
_SAY_AFTER_SECS = 5  # Shorter absences are not reported.
_SAY_SECS = 60  # Between two lines while a task stays out of reach.


class Cluster(typing.NamedTuple):
  """The tasks of a run, and which of them this process is."""
  # Job -> addresses host:port, of `ps`, `worker` and maybe `chief`; empty for
  # training in a single process.
  jobs: typing.Dict[str, typing.Tuple[str, ...]]
  job: str  # The job of this process, one of `JOBS`.
  task: int  # Its index in the job.

  @property
  def workers(self):
    """Addresses of all tasks that compute, the chief first."""
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
    """Where this process computes; '' without a cluster."""
    return f'/job:{self.job}/task:{self.task}' if self.jobs else ''

  def needed(self):
    """Name -> address of the tasks that this process cannot do without."""
    needed = {}
    if self.jobs and not self.is_chief:
      needed['the chief'] = self.workers[0]
    if self.jobs and self.job != PS:
      needed.update((f'ps {k}', address)
                    for k, address in enumerate(self.jobs[PS]))
    return needed

  def helpers(self):
    """Name -> address of the workers that help the chief."""
    return {f'worker {k - (CHIEF in self.jobs)}': address
            for k, address in enumerate(self.workers) if k}


ALONE = Cluster({}, WORKER, 0)


def check_exposure(is_allowed, interfaces=None):
  """Refuses to open a port of TensorFlow's server to other machines.

  Args:
    is_allowed: whether the user gave --listen_on_all_interfaces.
    interfaces: names of this machine's network interfaces; None asks the system
      for those of this process's network namespace.

  Raises:
    UserError: it is not allowed, and there are more interfaces than loopback.
  """
  if interfaces is None:
    interfaces = [name for _, name in socket.if_nameindex()]
  if not is_allowed and set(interfaces) - {'lo'}:
    raise UserError(
        "TensorFlow's server has no password, executes what it is sent and "
        'listens on every interface; give --listen_on_all_interfaces if nobody '
        'else can reach its port, or use scripts/local_cluster.sh, which runs '
        'the tasks where nobody can')


def find(config, environment):
  """The `Cluster` that the flags or the environment describe.

  Args:
    config: a `config.TrainConfig`.
    environment: name -> value, as os.environ.

  Returns:
    `ALONE` where neither names one.

  Raises:
    UserError: they do not describe a valid cluster with this process in it.
  """
  text = environment.get(TF_CONFIG, '')
  flags = [name for name in ('ps_hosts', 'worker_hosts', 'job_name')
           if getattr(config, name)]
  if flags and text:
    raise UserError(f'--{flags[0]} and the environment variable {TF_CONFIG} '
                    'both describe a cluster; give one of them')
  if flags or text:
    source = f'--{flags[0]}' if flags else TF_CONFIG
    for name in ('master', 'ps_tasks'):
      if getattr(config, name):
        raise UserError(
            f'--{name}={getattr(config, name)} is for servers that run already,'
            f' {source} for those that this command starts; give one of them')
  if text and config.task:
    raise UserError(f'--task={config.task}: the environment variable '
                    f'{TF_CONFIG} says which task this is')
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
  job, task = config.job_name, config.task
  if job not in (WORKER, PS, EVALUATOR):
    raise UserError(f'--job_name={job} must be worker, ps or evaluator')
  jobs = {}
  for name, flag in ((PS, 'ps_hosts'), (WORKER, 'worker_hosts')):
    value = getattr(config, flag)
    if value:
      jobs[name] = _addresses(f'--{flag}={value}', value.split(','))
    elif job != EVALUATOR:  # An evaluator does not need to reach the others.
      raise UserError(
          f'--{flag}= must be given with --job_name={job}: {_HINT}')
  if job != EVALUATOR and task >= len(jobs[job]):
    raise UserError(f'--task={task} must be below {len(jobs[job])}, the number '
                    f'of --{job}_hosts')
  return Cluster(jobs, job, task)


def _from_tf_config(text):
  """Reads {"cluster": {job: [address]}, "task": {"type": job, "index": k}}."""
  what = f'the environment variable {TF_CONFIG}'

  def bad(why):
    return UserError(f'{what} {why}; unset it, or see README.md')

  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise bad(f'is not JSON ({error})')
  if not isinstance(value, dict):
    raise bad('is not a JSON object')
  jobs, task = value.get('cluster') or {}, value.get('task') or {}
  if not isinstance(jobs, dict) or not isinstance(task, dict):
    raise bad('needs objects as cluster and task')
  job, index = task.get('type', WORKER), task.get('index', 0)
  if job not in JOBS or type(index) is not int or index < 0:  # pylint: disable=unidiomatic-typecheck
    raise bad(f'has the task {json.dumps(task)}; its type must be one of '
              f'{", ".join(JOBS)}, its index a number from 0')
  unknown = set(jobs) - set(JOBS)
  if unknown:
    raise bad(f'has the job {min(unknown)}; known are {", ".join(JOBS)}')
  found = {}
  for name, addresses in jobs.items():
    if not isinstance(addresses, list) or not all(
        isinstance(address, str) for address in addresses):
      raise bad(f'has {json.dumps({name: addresses})}, which is not a list of '
                'host:port')
    if addresses and name != EVALUATOR:
      found[name] = _addresses(f'{name} of {what}', addresses)
  if len(found.get(CHIEF, ())) > 1:
    raise bad('has more than one chief')
  count = len(found.get(job, ()))
  if job != EVALUATOR and (found or job == PS) and index >= count:
    raise bad(f'has {count} addresses of {job}, so none for task {index}')
  if (job in (CHIEF, WORKER) and PS not in found
      and sum(map(len, found.values())) < 2):
    return ALONE
  return Cluster(found, job, index)


def _addresses(what, values):
  for value in values:
    match = _ADDRESS.match(value)
    if not match or not 0 < int(match.group(2)) < 65536:
      raise UserError(f'{what}: {value!r} is not an address; {_HINT}')
  return tuple(values)


def _check(cluster):
  """Raises UserError unless the jobs are those of a run."""
  addresses = sum(cluster.jobs.values(), ())
  if not cluster.jobs.get(PS):
    raise UserError(f'a cluster of {len(addresses)} workers needs a ps, which '
                    'keeps the variables')
  if not cluster.workers:
    raise UserError('a cluster needs a worker')
  for address, count in collections.Counter(addresses).items():
    if count > 1:
      raise UserError(f'{address} stands for two tasks of the cluster; give '
                      'each its own port')


def split(address):
  """(host, port) of host:port; the host of IPv6 without its brackets."""
  host, _, port = address.rpartition(':')
  return host.strip('[]'), int(port)


def answers(address):
  """Whether somebody listens at host:port."""
  try:
    socket.create_connection(split(address), timeout=_CONNECT_SECS).close()
    return True
  except (OSError, UnicodeError):  # The latter for a host such as a..b.
    return False


class Watch:
  """Watches the tasks that this one needs, from its own thread.

  TensorFlow waits forever, in silence, for a server that is gone. This class
  reports who does not answer, and ends the process when that lasts too long or
  when no step is finished for as long.
  """

  def __init__(self, cluster, timeout, is_sync=False):
    """Starts watching.

    Args:
      cluster: a `Cluster`.
      timeout: seconds to wait for a task, or for a step after `wait`; 0: no
        limit.
      is_sync: whether a step takes every worker.
    """
    self._needed = cluster.needed()
    # Only the chief reports which workers are missing.
    self._helpers = cluster.helpers() if is_sync and cluster.is_chief else {}
    self._said_helpers = -float('inf')  # When it last reported them.
    self._timeout = timeout
    self._lost = {}  # Name -> since when it does not answer.
    self._said = {}  # Name -> when that was last reported.
    self._stepped = None  # When the last step ended, once there can be steps.
    self._ended = threading.Event()
    threading.Thread(target=self._run, daemon=True).start()

  def _run(self):
    while not self._ended.wait(_LOOK_SECS):
      self._look()
      self._look_for_helpers(time.monotonic())
      if self._timeout and not self._ended.is_set():
        self._check_patience(time.monotonic())

  def _check_patience(self, now):
    lost = sorted(name for name, since in self._lost.items()
                  if now - since >= self._timeout)
    why = ' and '.join(f'{name} at {self._needed[name]}' for name in lost)
    if self._lost and self._stepped:
      self._stepped = now  # Steps get their full time once all answer again.
    if lost:
      why += f' did not answer for {self._timeout} seconds'
    elif self._stepped and now - self._stepped >= self._timeout:
      why = (f'no step was finished for {self._timeout} seconds'
             f'{self._absent()}')
    if why:
      command.abort(f'{why} (--cluster_timeout); start what is missing, then '
                    'rerun the same command to resume from the last checkpoint')

  def _look(self):
    """Notes who answers and who does not; reports changes."""
    for name, address in self._needed.items():
      now = time.monotonic()
      if answers(address):
        if name in self._said:
          log(f'{name} at {address} answers')
        self._lost.pop(name, None)
        self._said.pop(name, None)
        continue
      absence = now - self._lost.setdefault(name, now)
      if (absence >= _SAY_AFTER_SECS
          and now - self._said.get(name, -float('inf')) >= _SAY_SECS):
        self._said[name] = now
        limit = (f', {int(self._timeout - absence)} seconds at most'
                 if self._timeout else '')
        log(f'waiting for {name} at {address}{limit}')

  def _look_for_helpers(self, now):
    """Reports which workers a step has been waiting for."""
    if self._helpers and self._stepped and _SAY_SECS <= min(
        now - self._stepped, now - self._said_helpers):
      absent = self._absent()
      if absent:
        self._said_helpers = now
        log(f'no step for {int(now - self._stepped)} seconds{absent}')

  def _absent(self):
    """Part of a line: the workers that do not answer, if any."""
    return ''.join(f', {name} at {address} does not answer'
                   for name, address in self._helpers.items()
                   if not answers(address))

  def stepped(self):
    """Must be called after every step."""
    self._stepped = time.monotonic()

  def wait(self, is_stopped):
    """Returns once every task that this one needs has answered.

    Args:
      is_stopped: a callable; once it is true, this returns anyway.
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
      self.stepped()  # No step is due any more.
      if time.monotonic() >= until:
        log(f'a worker did not end within {self._timeout} seconds; going on '
            'without it')
        return
      time.sleep(_PAUSE_SECS)

  def end(self):
    """Stops watching."""
    self._ended.set()
