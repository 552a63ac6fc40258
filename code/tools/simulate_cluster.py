"""What training on a cluster takes: bytes, seconds and staleness, on paper.

    python code/tools/simulate_cluster.py --show=traffic --studentnets=resnet32
    python code/tools/simulate_cluster.py --step_secs=0.47,0.12 --gbits=10,100 \\
      --servers=1,4 --workers=1,2,4,8,16,32,64

    traffic   what a worker and the servers send each other in a step, counted
              in the graph that training builds
    cluster   a simulation: every worker pulls the weights, computes and pushes
              the gradients, and the servers update. Those that use the same
              link, or the same server's memory, share it evenly. A worker does
              one thing at a time, so figures are at the low end

Prints Markdown tables. W is the number of workers, M that of servers. Exit
codes: 0 finished, 1 failed, 2 bad input.
"""
import collections
import math
import os
import sys
import typing

import numpy as np
from absl import flags

from mentormix.cluster import roles
from mentormix import command
from mentormix import config as config_lib
from mentormix.messages import UserError

# The package is in the folder above; tools are not installed.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

PULL, COMPUTE, PUSH, SUM, UPDATE = range(5)
_ASYNCHRONOUS = PULL, COMPUTE, PUSH, UPDATE
_FREE = 0  # The resource that nobody has to share.


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_enum('show', 'cluster', ['traffic', 'cluster'], 'See above.')
  for name, default, about in (
      ('workers', '1,2,4,8,16,32,64', 'Numbers of workers.'),
      ('servers', '1', 'Numbers of servers.'),
      ('gbits', '10,100', 'Gbit/s of every machine, each way.'),
      ('step_secs', '0.47', 'Seconds that a worker computes a step.'),
      ('fullest', [], 'Share of the weights on the fullest server, for each of '
       '--servers; by default 1 / M.'),
      ('studentnets', 'resnet32', 'traffic: the students.')):
    flags.DEFINE_list(name, default, about)
  for name, default, about in (
      ('mbytes', 117.8, '10^6 bytes of the weights, and of the gradients.'),
      ('update_gbytes', 2.6, 'GB of weights that a server updates, a second.'),
      ('sum_gbytes', 15, 'GB of gradients that a server adds up, a second.'),
      ('flow_gbits', 13, 'Most Gbit/s, each way, of a worker and a server.')):
    flags.DEFINE_float(name, default, about, 1e-6)
  flags.DEFINE_float('spread', 0.1, 'Standard deviation of the seconds that '
                     'workers compute, over their mean.', 0, 10)
  flags.DEFINE_integer('steps', 60, 'Simulated steps of a worker.', 10, 100000)
  flags.DEFINE_integer('seed', 0, 'Of the simulation.', 0, 2**32 - 1)


def main():
  """Flags -> tables."""
  servers = _numbers('servers')
  if flags.FLAGS.show == 'traffic':
    lines = traffic_table(flags.FLAGS.studentnets, servers)
  else:
    lines = cluster_tables(_numbers('workers'), servers,
                           _numbers('gbits', float),
                           _numbers('step_secs', float))
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
  given = ','.join(flags.FLAGS[name].value)
  what = 'whole numbers' if kind is int else 'numbers'
  raise UserError(f'--{name}={given}: give {what} above 0 and below 1000, with '
                  'commas between')


class Plan(typing.NamedTuple):
  """Who needs what in the P = 5 phases of a step: M things at a time.

  Asynchronous training has no sum. In synchronous training each worker's
  gradients are added up, then one update is that of all.
  """
  work: np.ndarray  # [P, W, M], in units of the resources; 0 for nothing.
  limit: np.ndarray  # [P], most units a second of each thing.
  uses: np.ndarray  # [P, 2, W, M], the two resources that each needs.
  capacity: np.ndarray  # [R], units a second of each resource, shared evenly.
  names: typing.List[str]  # What each resource is, R strings.


class Outcome(typing.NamedTuple):
  """What a simulation found."""
  rate: float  # Steps of single workers, a second.
  staleness: float  # Mean number of others' updates from pull to update.
  busiest: str  # The busiest resource,
  busy: float  # and which share of the time it is.


def network_plan(workers, shares, gbits, step_secs, mbytes, update_gbytes,
                 sum_gbytes, flow_gbits):
  """The `Plan` of W workers and M servers, each on its own machine.

  Args:
    workers: W.
    shares: [M], which share of the bytes each server holds.
    gbits, step_secs, mbytes, update_gbytes, sum_gbytes, flow_gbits: as the
      flags of these names.
  """
  servers, link, flow = len(shares), gbits / 8 * 1e9, flow_gbits / 8 * 1e9
  names = (['none'] + ['server out'] * servers + ['server in'] * servers
           + ['memory'] * servers + ['worker in'] * workers
           + ['worker out'] * workers)
  capacity = np.array([np.inf] + [link] * 2 * servers
                      + [update_gbytes * 1e9] * servers + [link] * 2 * workers)
  server = np.tile(np.arange(servers), (workers, 1))  # [W, M]
  worker = 1 + 3 * servers + np.tile(np.arange(workers)[:, None], (1, servers))
  none, memory = np.full_like(server, _FREE), 1 + 2 * servers + server
  moved = np.tile(np.asarray(shares) * mbytes * 1e6, (workers, 1))
  return Plan(
      np.array([moved, np.where(server == 0, step_secs, 0), moved,
                moved * (update_gbytes / sum_gbytes), moved]),
      np.array([flow, 1, flow, np.inf, np.inf]),
      np.array([[1 + server, worker], [none, none],
                [1 + servers + server, worker + workers],
                [memory, none], [memory, none]]),
      capacity, names)


def simulate(plan, steps, sync=False, spread=0.0, seed=0):
  """Returns the `Outcome` of training by a `Plan`.

  Args:
    plan: a `Plan`.
    steps: of each worker.
    sync: whether a step is one update by all workers, not one of each.
    spread: standard deviation of the compute time over its mean (log-normal).
    seed: of the compute times.
  """
  rng, sigma = np.random.RandomState(seed), math.sqrt(math.log(1 + spread**2))
  _, workers, servers = plan.work.shape
  left, limit = np.zeros([workers, servers]), np.ones([workers, servers])
  uses = np.full([2, workers, servers], _FREE)
  phase = [None] * workers  # None: it waits for the others.
  pulled = [0] * workers  # Version of the weights that each has.
  now, used, ends, staleness = 0.0, np.zeros(len(plan.capacity)), [], []

  def begin(worker, which, factor=1.0):
    if which == PULL:
      pulled[worker] = len(ends)
    if which == COMPUTE:
      factor *= math.exp(sigma * rng.randn() - sigma**2 / 2)
    left[worker] = plan.work[which, worker] * factor
    limit[worker], phase[worker] = plan.limit[which], which
    uses[:, worker] = plan.uses[which, :, worker]

  for worker in range(workers):
    # Asynchronous workers start anywhere in a step.
    begin(worker, *((PULL,) if sync else (COMPUTE, rng.uniform())))
  total = steps if sync else steps * workers
  while len(ends) < total:
    active = left > 0
    users = sum(np.bincount(which[active], minlength=len(used))
                for which in uses)
    share = plan.capacity / np.maximum(users, 1)
    rate = np.minimum(limit, share[uses].min(axis=0))[active]
    lasts = left[active] / rate
    until = lasts.min() if len(lasts) else 0.0
    now += until
    for which in uses:
      used += np.bincount(which[active], rate * until, len(used))
    left[active] = np.where(lasts <= until * (1 + 1e-9), 0,
                            left[active] - rate * until)
    for worker in np.flatnonzero(~left.any(axis=1)):
      if phase[worker] in (PULL, COMPUTE):
        begin(worker, phase[worker] + 1)
      elif phase[worker] == PUSH:
        begin(worker, SUM if sync else UPDATE)
      elif phase[worker] == SUM:  # The last worker updates for all.
        phase[worker] = None
        if phase == [None] * workers:
          begin(worker, UPDATE)
      elif phase[worker] == UPDATE:
        staleness.append(len(ends) - pulled[worker])
        ends.append(now)
        for next_worker in range(workers) if sync else [worker]:
          begin(next_worker, PULL)
  skipped = total // 5  # While it warms up.
  rate = (total - 1 - skipped) / (ends[-1] - ends[skipped])
  busy = used / plan.capacity / now
  busiest = int(np.argmax(busy))
  return Outcome(rate * (workers if sync else 1), np.mean(staleness[skipped:]),
                 plan.names[busiest], busy[busiest])


def alone(plan):
  """Seconds of an asynchronous step of the only worker, in closed form."""
  total = 0.0
  for phase in _ASYNCHRONOUS:
    work, uses = plan.work[phase, 0], plan.uses[phase, :, 0]
    rate = np.minimum(plan.limit[phase], plan.capacity[uses].min(axis=0))
    # One link carries what several servers send.
    total += max([(work / rate).max()] + [
        (np.bincount(which, work, len(plan.capacity)) / plan.capacity).max()
        for which in uses])
  return total


def most(plan):
  """Asynchronous steps a second that the servers allow, in closed form."""
  taken = np.zeros(len(plan.capacity))  # Seconds of a resource, a step.
  for phase in _ASYNCHRONOUS:
    for which in plan.uses[phase]:
      taken += np.bincount(which.ravel(), plan.work[phase].ravel(), len(taken))
  taken[[name.startswith('worker') for name in plan.names]] = 0
  return plan.work.shape[1] / (taken / plan.capacity).max()


def cluster_tables(workers, servers, gbits, step_secs):
  """The lines of the tables of --show=cluster."""
  args = flags.FLAGS
  fullest = _numbers('fullest', float) if args.fullest else [
      1.0 / count for count in servers]
  if len(fullest) != len(servers) or any(
      not 1.0 / count <= share <= 1 or count == 1 != share
      for count, share in zip(servers, fullest)):
    raise UserError(f'--fullest={",".join(args.fullest)}: give a share from 1 '
                    f'/ M to 1 for each of --servers={",".join(args.servers)}')
  shares = {count: [share] + [(1 - share) / max(1, count - 1)] * (count - 1)
            for count, share in zip(servers, fullest)}

  def plan_for(number, secs, link, count):
    return network_plan(number, shares[count], link, secs, args.mbytes,
                        args.update_gbytes, args.sum_gbytes, args.flow_gbits)

  cases = [(secs, link, count) for secs in step_secs for link in gbits
           for count in servers]
  yield ('| compute, s | Gbit/s | servers | step alone, s | steps/s at most | '
         'workers fed |')
  yield '|' + '---|' * 6
  for secs, link, count in cases:
    plan = plan_for(1, secs, link, count)
    yield (f'| {secs:g} | {link:g} | {count} | {alone(plan):.3f} | '
           f'{most(plan):.1f} | {most(plan) * alone(plan):.1f} |')
  yield ''
  yield ('| compute, s | Gbit/s | servers | workers | asynchronous: steps/s | '
         'of ideal | staleness | busiest | synchronous: steps/s | of ideal |')
  yield '|' + '---|' * 10
  for secs, link, count in cases:
    for number in workers:
      free, sync = (simulate(plan_for(number, secs, link, count), args.steps,
                             is_sync, args.spread, args.seed)
                    for is_sync in (False, True))
      yield (f'| {secs:g} | {link:g} | {count} | {number} | {free.rate:.2f} | '
             f'{free.rate * secs / number:.2f} | {free.staleness:.1f} | '
             f'{free.busiest} {100 * free.busy:.0f}% | {sync.rate:.2f} | '
             f'{sync.rate * secs / number:.2f} |')


def traffic_table(studentnets, servers):
  """The lines of the table of --show=traffic."""
  # pylint: disable=g-import-not-at-top
  from mentormix.data import datasets
  from mentormix.data import input_pipeline
  from mentormix.cluster import servers as servers_lib
  from mentormix.training import step as step_lib
  from mentormix.runtime import tf
  yield ('| student | trainable | largest, MB | checkpoint, MB | servers | '
         'fullest, share | down, MB | up, MB | tensors down | up |')
  yield '|' + '---|' * 10
  dataset = datasets.get('cifar10')
  for studentnet, count in ((s, c) for s in studentnets for c in servers):
    config = config_lib.TrainConfig(studentnet=studentnet)
    cluster = roles.Cluster(
        {'ps': ('a:1',) * count, 'worker': ('b:1',)}, 'worker', 0)
    with tf.Graph().as_default(), tf.device(
        servers_lib.placement(cluster, config)):
      labels = tf.zeros([config.batch_size], tf.int64)
      step = step_lib.build_step(
          config, dataset, 50000, input_pipeline.Batch(
              tf.zeros([config.batch_size, 32, 32, 3]), labels, labels, labels),
          lambda features: tf.ones_like(features[:, 0]), cluster=cluster)
      fetches = step.train_op, step.done, step.loss, step.weights_l2
      moved = traffic([getattr(x, 'op', x) for x in fetches], tf.resource)
      weights, held = tf.trainable_variables(), collections.Counter()
      for v in weights:
        held[v.device] += v.shape.num_elements()
      largest = max(v.shape.num_elements() for v in weights) * 4 / 1e6
      saved = sum(v.shape.num_elements() * v.dtype.base_dtype.size
                  for v in tf.global_variables()) / 1e6
      share = max(held.values()) / sum(held.values())
      down, up = moved['down'], moved['up']
      yield (f'| {studentnet} | {sum(held.values())} | {largest:.3f} | '
             f'{saved:.1f} | {count} | {share:.3f} | {sum(down) / 1e6:.3f} | '
             f'{sum(up) / 1e6:.3f} | {len(down)} | {len(up)} |')


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
  return {way: [size for other, size in moved.values() if other == way]
          for way in ('down', 'up')}


def _place(op, resource):
  """The task that runs an op, as /job:ps/task:0."""
  for tensor in op.inputs:  # An op runs where the variable it uses is.
    if tensor.dtype.base_dtype == resource:
      return _place(tensor.op, resource)
  for group in op.colocation_groups():
    name = group.decode()[len('loc:@'):]
    if name != op.name:
      return _place(op.graph.get_operation_by_name(name), resource)
  return '/'.join(op.device.split('/')[:3])


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
