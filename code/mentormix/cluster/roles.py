"""The tasks of a training run on several machines, and which one this is.

    ps          keeps the variables; several of them share them out
    worker      computes steps; worker 0, or the job `chief`, also writes the
                checkpoints and is called the chief
    evaluator   evaluates the checkpoints; no task needs to reach it

Host lists on the command line or the environment variable TF_CONFIG, as in
TensorFlow's own programs, say where the tasks are. This module does not import
TensorFlow.
"""
import collections
import json
import re
import socket
import typing

from mentormix.messages import UserError

TF_CONFIG = 'TF_CONFIG'
CHIEF, WORKER, PS, EVALUATOR = JOBS = 'chief', 'worker', 'ps', 'evaluator'
_ADDRESS = re.compile(r'(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$')
_HINT = 'write host:port,host:port'


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
    """Address of this process."""
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
    """Name -> address of the workers other than the chief."""
    return {f'worker {k - (CHIEF in self.jobs)}': address
            for k, address in enumerate(self.workers) if k}


ALONE = Cluster({}, WORKER, 0)


def check_exposure(is_allowed):
  """Refuses to open a port of TensorFlow's server to other machines.

  Args:
    is_allowed: whether the user gave --listen_on_all_interfaces.

  Raises:
    UserError: it is not allowed, and there are other interfaces than loopback.
  """
  if not is_allowed and {name for _, name in socket.if_nameindex()} - {'lo'}:
    raise UserError(
        "TensorFlow's server has no password, executes what it is sent and "
        'listens on every interface; give --listen_on_all_interfaces if nobody '
        'else can reach its port, or use scripts/local_cluster.sh, which runs '
        'the tasks where nobody can')


def find(config, environment):
  """Returns the `Cluster` that the flags or the environment describe.

  Args:
    config: a `config.TrainConfig`.
    environment: name -> value, as os.environ.

  Returns:
    `ALONE` if neither describes a cluster.

  Raises:
    UserError: they do not describe a valid cluster with this process in it, or
      other machines could reach its port and the user did not allow that.
  """
  text = environment.get(TF_CONFIG)
  flags = [name for name in ('ps_hosts', 'worker_hosts', 'job_name')
           if getattr(config, name)]
  if not flags and not text:  # Running servers may have several clients.
    return ALONE._replace(task=config.task)
  others = ['master', 'ps_tasks'] + (['task'] + flags if text else [])
  for name in others:
    if getattr(config, name):
      source = TF_CONFIG if text else f'--{flags[0]}'
      raise UserError(f'--{name}={getattr(config, name)} and {source} both '
                      'describe the cluster; give one of them')
  found = _from_flags(config) if flags else _from_tf_config(text)
  if found.jobs and found.job != EVALUATOR:
    _check_jobs(found)
    check_exposure(config.listen_on_all_interfaces)
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
  try:
    value = json.loads(text)
    given, task = value.get('cluster') or {}, value.get('task') or {}
    job, index = task.get('type', WORKER), task.get('index', 0)
    jobs = {name: _addresses(f'{name} of {TF_CONFIG}', addresses)
            for name, addresses in given.items()
            if addresses and name != EVALUATOR}  # No task needs to reach it.
    if not {job, *given} <= set(JOBS):
      raise ValueError(f'known jobs are {", ".join(JOBS)}')
    if len(jobs.get(CHIEF, ())) > 1:
      raise ValueError('it has more than one chief')
    if job != EVALUATOR and (jobs or job == PS) and not (
        0 <= index < len(jobs.get(job, ()))):
      raise ValueError(f'it has no address for {job} {index}')
  except (ValueError, TypeError, AttributeError) as error:
    raise UserError(
        f'the environment variable {TF_CONFIG} is not {{"cluster": {{job: '
        '["host:port"]}, "task": {"type": job, "index": number}} '
        f'({error}); unset it, or see README.md')
  if (job in (CHIEF, WORKER) and PS not in jobs
      and sum(map(len, jobs.values())) < 2):
    return ALONE
  return Cluster(jobs, job, index)


def _addresses(what, values):
  for value in values:
    match = _ADDRESS.match(value)
    if not match or not 0 < int(match.group(2)) < 65536:
      raise UserError(f'{what}: {value!r} is not an address; {_HINT}')
  return tuple(values)


def _check_jobs(cluster):
  """Raises UserError unless the jobs are those of a run."""
  addresses = sum(cluster.jobs.values(), ())
  if PS not in cluster.jobs:
    raise UserError(f'a cluster of {len(addresses)} workers needs a ps, which '
                    'keeps the variables')
  if not cluster.workers:
    raise UserError('a cluster needs a worker')
  address, count = collections.Counter(addresses).most_common(1)[0]
  if count > 1:
    raise UserError(f'{address} stands for two tasks of the cluster; give each '
                    'its own port')
