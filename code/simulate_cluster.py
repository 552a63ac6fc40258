"""What training on a cluster takes: bytes, seconds, staleness, by simulation.

    python code/simulate_cluster.py --show=traffic --studentnets=resnet32
    python code/simulate_cluster.py --show=cluster --step_secs=0.47,0.12 \\
      --gbits=10,100 --servers=1,4 --workers=1,2,4,8,16,32,64
    python code/simulate_cluster.py --show=machine --studentnets=resnet32 \\
      --batch_size=8
    python code/simulate_cluster.py --show=input --data_dir=data/cifar10/0.4

    traffic   what a worker and the servers send each other in a step, counted
              in the graph that training builds
    cluster   a simulation: every worker pulls the weights, computes, pushes the
              gradients, and the servers update; who uses the same link, or the
              same server's memory, shares it evenly. Nothing overlaps within a
              worker, so figures are at the low end
    machine   measures the parts of a step on this machine, and predicts by the
              same simulation the step of workers and a server that share its
              cores
    input     measures how fast records are checked before the first step, and
              images come from files, as of a set too large for memory

Prints Markdown tables. W is the number of workers, M that of servers. Exit
codes: 0 finished, 1 failed, 2 bad input.
"""
import collections
import contextlib
import functools
import json
import math
import os
import socket
import subprocess
import sys
import time

from absl import flags
import numpy as np

from mentormix import cluster as cluster_lib
from mentormix import command
from mentormix import config as config_lib
from mentormix.command import RunError
from mentormix.command import UserError

PULL, COMPUTE, PUSH, SUM, UPDATE = range(5)
_FREE = 0  # The resource that nobody has to share.
_WARM_UP = 0.2  # Share of the steps that does not count.
_DATASET = 'cifar10'
_HOST = '127.0.0.1'
_REPEATS = 7
_BATCHES = 40  # A sample of the input.
_THREADS = (1, 2, 4)  # That decode and augment.
_START = ('import sys; sys.path[0] = %r; import simulate_cluster; '
          'simulate_cluster.serve()')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_enum('show', 'cluster',
                    ['traffic', 'cluster', 'machine', 'input'],
                    'What to show; see above.')
  flags.DEFINE_list('workers', ['1', '2', '4', '8', '16', '32', '64'],
                    'Numbers of workers.')
  flags.DEFINE_list('servers', ['1'], 'Numbers of servers.')
  flags.DEFINE_list('gbits', ['10', '100'],
                    'cluster: Gbit/s of every machine, each way.')
  flags.DEFINE_list('step_secs', ['0.47'],
                    'cluster: seconds that a worker computes a step.')
  flags.DEFINE_float('spread', 0.1,
                     'cluster: standard deviation of these over their mean.',
                     lower_bound=0, upper_bound=10)
  flags.DEFINE_float('mbytes', 117.8, 'cluster: 10^6 bytes of the weights, and '
                     'of the gradients.', lower_bound=1e-6)
  flags.DEFINE_list('fullest', [], 'cluster: which share of them the fullest '
                    'server holds, for each of --servers; by default 1 / M.')
  flags.DEFINE_float('update_gbytes', 2.6, 'cluster: 10^9 bytes of weights '
                     'that a server updates a second.', lower_bound=1e-6)
  flags.DEFINE_float('sum_gbytes', 15, 'cluster: 10^9 bytes of gradients that '
                     'a server adds up a second, for --sync_replicas.',
                     lower_bound=1e-6)
  flags.DEFINE_float('flow_gbits', 13, 'cluster: most that one worker and one '
                     'server exchange, Gbit/s each way.', lower_bound=1e-6)
  flags.DEFINE_integer('steps', 60, 'cluster, machine: simulated steps of each '
                       'worker.', lower_bound=10, upper_bound=100000)
  flags.DEFINE_integer('seed', 0, 'Of the simulation.', lower_bound=0,
                       upper_bound=2 ** 32 - 1)
  flags.DEFINE_list('studentnets', ['resnet32'], 'traffic, machine: the '
                    'students.')
  flags.DEFINE_integer('batch_size', 128, 'Examples per step of a worker.',
                       lower_bound=1)
  flags.DEFINE_string('trained_mentornet_dir',
                      'mentornet_models/mentornet_pd',
                      'traffic, machine: the MentorNet.')
  flags.DEFINE_string('data_dir', '', 'input: directory of a training set of '
                      'CIFAR-10.')


def main():
  """Flags -> tables."""
  args = flags.FLAGS
  workers, servers = _numbers('workers'), _numbers('servers')
  config_lib.validate(_config(''))
  if args.show == 'cluster':
    lines = cluster_tables(workers, servers, _numbers('gbits', float),
                           _numbers('step_secs', float))
  elif args.show == 'traffic':
    lines = traffic_table(args.studentnets, servers)
  elif args.show == 'input':
    lines = input_table(args.data_dir, args.batch_size)
  else:
    lines = machine_table(args.studentnets, workers)
  for line in lines:
    print(line, flush=True)


def _numbers(name, kind=int):
  """The values of a list flag, each above 0 and below 1,000."""
  try:
    values = [kind(value) for value in flags.FLAGS[name].value]
    if values and all(0 < value < 1e3 for value in values):
      return values
  except ValueError:
    pass
  raise UserError('--%s=%s: give %s above 0 and below 1000, with commas '
                  'between' % (name, ','.join(flags.FLAGS[name].value),
                               'whole numbers' if kind is int else 'numbers'))


# The simulation --------------------------------------------------------------


class Phase(collections.namedtuple('Phase', 'work limit first second')):
  """What a worker does next: M things at a time.

  Attributes:
    work: [W, M], in units of the resources that it uses; 0 for nothing.
    limit: most units a second of each thing, however free the resources are.
    first: int [W, M], the resource that each needs; `_FREE` for none.
    second: another one, likewise.
  """
  __slots__ = ()


class Plan(collections.namedtuple('Plan', 'phases capacity names')):
  """Who needs what for a step.

  Attributes:
    phases: the five `Phase`s pull, compute, push, sum, update. Asynchronous
      training has no sum; in synchronous training each worker's gradients are
      added up, and then one worker's update is that of all.
    capacity: [R], units a second of each resource, shared evenly.
    names: what each resource is, R strings.
  """
  __slots__ = ()


Outcome = collections.namedtuple('Outcome', 'rate staleness busiest busy')


def network_plan(workers, shares, gbits, step_secs, mbytes, update_gbytes,
                 sum_gbytes, flow_gbits):
  """Workers and servers on machines of their own.

  Args:
    workers: W.
    shares: [M], which share of the bytes each server holds.
    gbits: of every machine's link, Gbit/s each way.
    step_secs: seconds of computing.
    mbytes: of the weights, and of the gradients, 10^6 bytes.
    update_gbytes: what a server updates, 10^9 bytes of weights a second.
    sum_gbytes: what it adds up, 10^9 bytes of gradients a second.
    flow_gbits: most between one worker and one server, Gbit/s each way.
  """
  servers = len(shares)
  link = gbits / 8 * 1e9  # Bytes a second.
  names = (['none'] + ['server out'] * servers + ['server in'] * servers
           + ['memory'] * servers + ['worker in'] * workers
           + ['worker out'] * workers)
  capacity = np.array([np.inf] + [link] * 2 * servers
                      + [update_gbytes * 1e9] * servers + [link] * 2 * workers)
  columns = np.tile(np.arange(servers), (workers, 1))  # [W, M]
  rows = 1 + 3 * servers + np.tile(np.arange(workers)[:, None], (1, servers))
  none, memory = np.full_like(columns, _FREE), 1 + 2 * servers + columns
  moved = np.tile(np.asarray(shares) * mbytes * 1e6, (workers, 1))
  compute = np.zeros([workers, servers])
  compute[:, 0] = step_secs
  flow = flow_gbits / 8 * 1e9
  return Plan([Phase(moved, flow, 1 + columns, rows),
               Phase(compute, 1.0, none, none),
               Phase(moved, flow, 1 + servers + columns, rows + workers),
               Phase(moved * (update_gbytes / sum_gbytes), np.inf, memory,
                     none),
               Phase(moved, np.inf, memory, none)],
              capacity, names)


def machine_plan(workers, cores, seconds):
  """All tasks on one machine, whose cores are what they share.

  Args:
    workers: W.
    cores: how many.
    seconds: of the five phases, alone: pairs of wall and CPU seconds.
  """
  none = np.full([workers, 1], _FREE)
  return Plan([Phase(np.full([workers, 1], cpu), cpu / wall if wall else 1.0,
                     none + 1, none) for wall, cpu in seconds],
              np.array([np.inf, cores]), ['none', 'cores'])


def simulate(plan, steps, sync=False, spread=0.0, seed=0):
  """Trains on paper.

  Args:
    plan: a `Plan`.
    steps: of each worker.
    sync: whether a step is one update by all workers, not one of each.
    spread: standard deviation of the compute time over its mean (log-normal).
    seed: of the compute times.

  Returns:
    An `Outcome`: steps of single workers a second; the mean number of others'
    updates from a worker's pull to its own update; the busiest resource, and
    which share of the time it is.
  """
  rng = np.random.RandomState(seed)
  sigma = math.sqrt(math.log(1 + spread ** 2))
  workers, servers = plan.phases[PULL].work.shape
  left, limit = np.zeros([workers, servers]), np.ones([workers, servers])
  first, second = (np.full([workers, servers], _FREE) for _ in range(2))
  phase = [None] * workers  # None: it waits for the others.
  pulled = [0] * workers  # Version of the weights that each has.
  now, version, used = 0.0, 0, np.zeros(len(plan.capacity))
  ends, staleness = [], []

  def begin(worker, which, factor=1.0):
    what = plan.phases[which]
    if which == PULL:
      pulled[worker] = version
    if which == COMPUTE:
      factor *= math.exp(sigma * rng.randn() - sigma ** 2 / 2)
    left[worker], limit[worker] = what.work[worker] * factor, what.limit
    first[worker], second[worker] = what.first[worker], what.second[worker]
    phase[worker] = which

  for worker in range(workers):
    if sync:
      begin(worker, PULL)
    else:  # Anywhere in a step.
      begin(worker, COMPUTE, rng.uniform())
  total = steps if sync else steps * workers
  while len(ends) < total:
    active = left > 0
    users = sum(np.bincount(which[active], minlength=len(used))
                for which in (first, second))
    share = plan.capacity / np.maximum(users, 1)
    rate = np.minimum(limit, np.minimum(share[first], share[second]))[active]
    lasts = left[active] / rate
    until = lasts.min() if len(lasts) else 0.0
    now += until
    for which in (first, second):
      used += np.bincount(which[active], rate * until, len(used))
    left[active] = np.where(lasts <= until * (1 + 1e-9), 0,
                            left[active] - rate * until)
    for worker in np.flatnonzero(~left.any(axis=1)):
      if phase[worker] in (PULL, COMPUTE):
        begin(worker, phase[worker] + 1)
      elif phase[worker] == PUSH:
        begin(worker, SUM if sync else UPDATE)
      elif phase[worker] == SUM:  # The last one updates for all.
        phase[worker] = None
        if phase == [None] * workers:
          begin(worker, UPDATE)
      elif phase[worker] == UPDATE:
        staleness.append(version - pulled[worker])
        version += 1
        ends.append(now)
        for next_worker in range(workers) if sync else [worker]:
          begin(next_worker, PULL)
  skipped = int(_WARM_UP * total)
  rate = (total - 1 - skipped) / (ends[-1] - ends[skipped])
  busy = used / plan.capacity / now
  busiest = int(np.argmax(busy))
  return Outcome(rate * (workers if sync else 1), np.mean(staleness[skipped:]),
                 plan.names[busiest], busy[busiest])


def alone(plan):
  """Seconds of an asynchronous step of the only worker, in closed form."""
  capacity = plan.capacity
  total = 0.0
  for phase in _asynchronous(plan):
    work, first, second = phase.work[0], phase.first[0], phase.second[0]
    rate = np.minimum(phase.limit, np.minimum(capacity[first],
                                              capacity[second]))
    seconds = (work / rate).max()
    for which in (first, second):  # One link takes what several servers send.
      seconds = max(seconds, (np.bincount(which, work, len(capacity))
                              / capacity).max())
    total += seconds
  return total


def most(plan):
  """Asynchronous steps a second that the servers allow, in closed form."""
  taken = np.zeros(len(plan.capacity))  # Seconds of a resource, a step.
  for phase in _asynchronous(plan):
    for which in (phase.first, phase.second):
      taken += np.bincount(which.ravel(), phase.work.ravel(), len(taken))
  taken[[name.startswith('worker') for name in plan.names]] = 0
  return len(plan.phases[PULL].work) / (taken / plan.capacity).max()


def _asynchronous(plan):
  return [phase for k, phase in enumerate(plan.phases) if k != SUM]


def cluster_tables(workers, servers, gbits, step_secs):
  """The lines of the tables of --show=cluster."""
  args = flags.FLAGS
  fullest = _numbers('fullest', float) if args.fullest else [
      1.0 / count for count in servers]
  if len(fullest) != len(servers) or any(
      not 1.0 / count <= share <= 1 or count == 1 != share
      for count, share in zip(servers, fullest)):
    raise UserError('--fullest=%s: give a share from 1 / M to 1 for each of '
                    '--servers=%s' % (','.join(args.fullest),
                                      ','.join(args.servers)))
  shares = {count: [share] + [(1 - share) / max(1, count - 1)] * (count - 1)
            for count, share in zip(servers, fullest)}

  def plan_for(num_workers, num_servers, link, secs):
    return network_plan(
        num_workers, shares[num_servers], link, secs, args.mbytes,
        args.update_gbytes, args.sum_gbytes, args.flow_gbits)

  cases = [(secs, link, count) for secs in step_secs for link in gbits
           for count in servers]
  yield '| compute, s | Gbit/s | servers | step alone, s | steps/s at most | '\
      'workers fed |'
  yield '|---|---|---|---|---|---|'
  for secs, link, count in cases:
    plan = plan_for(1, count, link, secs)
    yield '| %g | %g | %d | %.3f | %.1f | %.1f |' % (
        secs, link, count, alone(plan), most(plan), most(plan) * alone(plan))
  yield ''
  yield '| compute, s | Gbit/s | servers | workers | asynchronous: steps/s | '\
      'of ideal | staleness | busiest | synchronous: steps/s | of ideal |'
  yield '|' + '---|' * 10
  for secs, link, count in cases:
    for number in workers:
      plan = plan_for(number, count, link, secs)
      free, sync = (simulate(plan, args.steps, sync, args.spread, args.seed)
                    for sync in (False, True))
      yield '| %g | %g | %d | %d | %.2f | %.2f | %.1f | %s %.0f%% | %.2f | '\
          '%.2f |' % (secs, link, count, number, free.rate,
                      free.rate * secs / number, free.staleness, free.busiest,
                      100 * free.busy, sync.rate, sync.rate * secs / number)


# What the figures rest on ----------------------------------------------------


def _config(studentnet):
  args = flags.FLAGS
  return config_lib.TrainConfig(
      studentnet=studentnet, batch_size=args.batch_size, data_dir='unused',
      dataset_name=_DATASET,
      train_log_dir='unused', trained_mentornet_dir=args.trained_mentornet_dir)


def _step(config, cluster):
  """Adds a training step on random images to the graph; its fetches."""
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix import input_pipeline
  from mentormix import mentornet
  from mentormix import training
  from mentormix.runtime import tf
  dataset = datasets.get(config.dataset_name)
  size = [config.batch_size, dataset.image_size, dataset.image_size, 3]
  labels = tf.zeros(size[:1], tf.int64)
  batch = input_pipeline.Batch(tf.random.uniform(size), labels, labels, labels)
  step = training.build_step(
      config, dataset, 50000, batch, mentornet.load(
          config.trained_mentornet_dir, config.loss_p_percentile),
      cluster=cluster)
  return [step.train_op, step.done, step.loss, step.weights_l2]


def traffic_table(studentnets, servers):
  """The lines of the table of --show=traffic."""
  # pylint: disable=g-import-not-at-top
  from mentormix import servers as servers_lib
  from mentormix.runtime import tf
  yield '| student | trainable | largest, MB | checkpoint, MB | servers | '\
      'fullest, share | down, MB | up, MB | tensors down | up |'
  yield '|' + '---|' * 10
  for studentnet in studentnets:
    for count in servers:
      config = _config(studentnet)
      cluster = cluster_lib.Cluster(
          {'ps': ('a:1',) * count, 'worker': ('b:1',)}, 'worker', 0)
      with tf.Graph().as_default(), tf.device(
          servers_lib.placement(cluster, config)):
        fetches = _step(config, cluster)
        moved = traffic([x.op if hasattr(x, 'op') else x for x in fetches],
                        tf.resource)
        weights = tf.trainable_variables()
        held = collections.Counter()
        for v in weights:
          held[v.device] += v.shape.num_elements()
        yield '| %s | %d | %.3f | %.1f | %d | %.3f | %.3f | %.3f | %d | %d '\
            '|' % (studentnet, sum(held.values()),
                   max(v.shape.num_elements() for v in weights) * 4 / 1e6,
                   sum(v.shape.num_elements() * v.dtype.base_dtype.size
                       for v in tf.global_variables()) / 1e6, count,
                   max(held.values()) / float(sum(held.values())),
                   sum(moved['down']) / 1e6, sum(moved['up']) / 1e6,
                   len(moved['down']), len(moved['up']))


def traffic(ops, resource):
  """Bytes of every tensor that goes from a server to the worker, or back.

  Args:
    ops: what a step runs.
    resource: tf.resource, the dtype of what stands for a variable.

  Returns:
    'down' and 'up' -> list of bytes; a tensor goes to a machine once.
  """
  needed, rest = set(), list(ops)
  while rest:
    op = rest.pop()
    if op not in needed:
      needed.add(op)
      rest += [t.op for t in op.inputs] + list(op.control_inputs)
  moved = {}
  for op in needed:
    for tensor in op.inputs:
      source, target = _place(tensor.op, resource), _place(op, resource)
      if source != target and tensor.dtype.base_dtype != resource:
        size = tensor.shape.num_elements() * tensor.dtype.size
        moved[tensor.name, target] = ('down' if 'ps' in source else 'up', size)
  found = collections.defaultdict(list)
  for way, size in moved.values():
    found[way].append(size)
  return found


def _place(op, resource):
  """The task that runs an op, as /job:ps/task:0."""
  for tensor in op.inputs:  # What changes or reads a variable is where it lies.
    if tensor.dtype.base_dtype == resource:
      return _place(tensor.op, resource)
  for group in op.colocation_groups():
    name = group.decode()[len('loc:@'):]
    if name != op.name:
      return _place(op.graph.get_operation_by_name(name), resource)
  return '/'.join(op.device.split('/')[:3])


def machine_table(studentnets, workers):
  """The lines of the tables of --show=machine."""
  cores = len(os.sched_getaffinity(0))
  for studentnet in studentnets:
    parts = measure(_config(studentnet))
    yield '%s, batch %d, %d cores' % (studentnet, flags.FLAGS.batch_size, cores)
    yield ''
    yield '| part | wall, s | CPU of all, s |'
    yield '|---|---|---|'
    for name, seconds in parts.items():
      yield '| %s | %.4f | %.4f |' % ((name,) + seconds)
    yield ''
    yield '| workers | step, s | steps/s of all |'
    yield '|---|---|---|'
    for number in workers:
      # Alone, a step has its update in it.
      plan = machine_plan(number, cores, [parts['pull'], parts['step'],
                                          parts['push'], (0.0, 0.0),
                                          (0.0, 0.0)])
      rate = simulate(plan, flags.FLAGS.steps, seed=flags.FLAGS.seed).rate
      yield '| %d | %.3f | %.4f |' % (number, number / rate, rate)
    yield ''


def measure(config):
  """Times the parts of a step, each alone, with a server in another process.

  Returns:
    'step', of a process without servers, 'pull' and 'push' -> median wall
    seconds, CPU seconds of both processes.
  """
  # pylint: disable=g-import-not-at-top
  from mentormix import runtime
  from mentormix.runtime import tf
  runtime.select_device('')
  found = collections.OrderedDict()
  with tf.Graph().as_default():
    fetches = _step(config, cluster_lib.ALONE)
    shapes = [v.shape.as_list() for v in tf.trainable_variables()]
    with tf.Session(config=runtime.session_config()) as session:
      session.run(tf.global_variables_initializer())
      found['step'] = _time(lambda: session.run(fetches), [os.getpid()])

  with _tasks() as (target, processes), tf.Graph().as_default():
    held, sums = {}, {}
    ps, worker = '/job:ps/task:0', '/job:worker/task:0'
    for place in (ps, worker):
      with tf.device(place):
        held[place] = [tf.Variable(tf.ones(shape)) for shape in shapes]
    for place, other in ((ps, worker), (worker, ps)):
      values = [variable.read_value() for variable in held[other]]
      with tf.device(place):  # Each comes whole, and a number of it is used.
        sums[place] = tf.add_n([tf.reshape(x, [-1])[0] for x in values])
    with tf.Session(target, config=runtime.session_config()) as session:
      session.run(tf.global_variables_initializer())
      for name, place in (('pull', worker), ('push', ps)):
        found[name] = _time(functools.partial(session.run, sums[place]),
                            processes)
  return found


@contextlib.contextmanager
def _tasks():
  """Runs a parameter server and, in this process, a worker.

  Yields:
    (target, processes): of a session, and the numbers of both processes.
  """
  with socket.socket() as a, socket.socket() as b:
    for free in (a, b):
      free.bind((_HOST, 0))
    ports = [free.getsockname()[1] for free in (a, b)]
  start = _START % os.path.dirname(os.path.abspath(__file__))
  child = subprocess.Popen([sys.executable, '-c', start, json.dumps(ports)])
  try:
    server = _server(ports, 'worker')
    yield server.target, [os.getpid(), child.pid]
  finally:
    child.kill()
    child.wait()


def input_table(data_dir, batch_size):
  """The lines of the table of --show=input."""
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix import input_pipeline
  from mentormix import runtime
  from mentormix.runtime import tf
  input_pipeline.MOST_IN_MEMORY = 0
  dataset = datasets.get(_DATASET)
  files = datasets.find_files(dataset, 'train', data_dir)
  _, count = datasets.check_files(dataset, 'train', files)
  here = [os.getpid()]
  yield '| TensorFlow %s | records or images a second | a CPU second |' % (
      runtime.VERSION)
  yield '|---|---|---|'
  wall, cpu = _time(
      lambda: datasets.check_files(dataset, 'train', files), here)
  yield '| check | %.0f | %.0f |' % (count / wall, count / cpu)
  for threads in _THREADS:
    with tf.Graph().as_default():
      batch = input_pipeline.train_batch(dataset, files, count, batch_size,
                                         num_threads=threads)
      with tf.train.MonitoredSession() as session:
        step = functools.partial(session.run, batch.images.op)
        wall, cpu = _time(lambda: [step() for _ in range(_BATCHES)], here)
    images = _BATCHES * batch_size
    yield '| from files, threads: %d | %.0f | %.0f |' % (
        threads, images / wall, images / cpu)


def _time(run, processes):
  """(wall, CPU) seconds of a call: median, and mean over some processes."""
  for _ in range(2):
    run()
  walls, before = [], sum(map(_cpu_secs, processes))
  for _ in range(_REPEATS):
    begun = time.perf_counter()
    run()
    walls.append(time.perf_counter() - begun)
  cpu = (sum(map(_cpu_secs, processes)) - before) / _REPEATS
  return float(np.median(walls)), cpu


def _cpu_secs(process):
  """Of a process so far, user and system."""
  if process == os.getpid():
    return time.process_time()
  try:
    with open('/proc/%d/stat' % process) as f:
      fields = f.read().rpartition(')')[2].split()
  except OSError:
    raise RunError('--show=machine: process %d or its /proc is gone; it needs '
                   'Linux' % process)
  return (int(fields[11]) + int(fields[12])) / float(os.sysconf('SC_CLK_TCK'))


def _server(ports, job):
  """A tf.train.Server on this machine, for nobody from outside.

  Args:
    ports: of the parameter server and of the worker.
    job: ps or worker.
  """
  # pylint: disable=g-import-not-at-top
  from mentormix import listening
  from mentormix import runtime
  from mentormix.runtime import tf
  runtime.select_device('')
  jobs = {name: ['%s:%d' % (_HOST, port)]
          for name, port in zip(('ps', 'worker'), ports)}
  with listening.only_on(_HOST, ports[job == 'worker']):
    return tf.train.Server(jobs, job, 0)


def serve():
  """The other process: a server that holds variables until it is killed."""
  _server(json.loads(sys.argv[1]), 'ps').join()


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
