r"""Estimates what training on a cluster takes: bytes, seconds and staleness.

    python code/tools/simulate_cluster.py --show=traffic --studentnets=resnet32
    python code/tools/simulate_cluster.py --step_secs=0.47,0.12 --gbits=10,100 \
      --servers=1,4 --workers=1,2,4,8,16,32,64

    traffic   what a worker and the servers send each other in a step, counted
              in the graph that training builds
    cluster   a simulation: every worker pulls the weights, computes and pushes
              the gradients, and the servers update. Workers that use the same
              link, or the memory of the same server, share it evenly. A worker
              does one thing at a time, so figures are at the low end

Prints Markdown tables. W is the number of workers, M that of servers. Exit
codes: 0 finished, 1 failed, 2 bad input.
"""
import collections
import math
import os
import sys
from typing import List, NamedTuple

from absl import flags
import numpy as np

# Tools are not installed; the package is in the folder above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mentormix import command
from mentormix import config as config_lib
from mentormix.accelerator import flops
from mentormix.cluster import roles
from mentormix.cluster import servers as servers_lib
from mentormix.data import datasets
from mentormix.data import input_pipeline
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.training import step as step_lib

# The phases of a step. Asynchronous training has no SUM. In synchronous
# training the gradients of each worker are added up, then one update is made.
PULL, COMPUTE, PUSH, SUM, UPDATE, WAIT = range(6)
# What a server has for all workers, and which of it each phase uses, if any.
_SHARED = ('server out', 'server in', 'memory')
_USES = np.array([0, -1, 1, 2, 2, -1])


def define_flags():
  """Defines the flags of this command."""
  flags.DEFINE_enum('show', 'cluster', ['traffic', 'cluster'], 'See above.')
  for name, default, about in (
      ('workers', '1,2,4,8,16,32,64', 'Numbers of workers.'),
      ('servers', '1', 'Numbers of servers.'),
      ('gbits', '10,100', 'Gbit/s of every machine, each way.'),
      ('step_secs', '0.47', 'Seconds that a worker computes per step.'),
      ('fullest', [], 'Share of the weights on the fullest server, for each of '
       '--servers; by default 1 / M.'),
      ('studentnets', 'resnet32', 'traffic: the students.')):
    flags.DEFINE_list(name, default, about)
  for name, default, about in (
      ('mbytes', 117.8, '10^6 bytes of the weights, and of the gradients.'),
      ('update_gbytes', 2.6, 'GB of weights that a server updates per second.'),
      ('sum_gbytes', 15, 'GB of gradients that a server adds up per second.'),
      ('flow_gbits', 13, 'Most Gbit/s, each way, of a worker and a server.')):
    flags.DEFINE_float(name, default, about, 1e-6)
  flags.DEFINE_float('spread', 0.1, 'Standard deviation of the seconds that '
                     'workers compute, divided by their mean.', 0, 10)
  flags.DEFINE_integer('steps', 60, 'Simulated steps of a worker.', 10, 100000)
  flags.DEFINE_integer('seed', 0, 'Seed of the simulation.', 0, 2**32 - 1)


def main():
  """Flags -> tables."""
  servers = _numbers('servers')
  table = (traffic_table(flags.FLAGS.studentnets, servers)
           if flags.FLAGS.show == 'traffic' else cluster_tables(servers))
  for line in table:
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


class Machines(NamedTuple):
  """The machines of a cluster: M servers, and workers that are all alike."""
  shares: List[float]  # [M], the share of the weights on each server.
  gbits: float  # The rest is as the flags of these names.
  step_secs: float
  mbytes: float
  update_gbytes: float
  sum_gbytes: float
  flow_gbits: float

  @property
  def link(self):
    """Bytes per second of a link, each way."""
    return self.gbits * 1e9 / 8

  @property
  def flow(self):
    """Most bytes per second between a worker and a server."""
    return min(self.link, self.flow_gbits * 1e9 / 8)

  @property
  def fullest(self):
    """Bytes of the weights on the fullest server."""
    return max(self.shares) * self.mbytes * 1e6


class Outcome(NamedTuple):
  """What a simulation found."""
  rate: float  # Steps of single workers per second.
  staleness: float  # Mean number of others' updates from pull to update.
  busiest: str  # The busiest of what servers share out,
  busy: float  # and for which share of the time it is in use.


def alone(machines):
  """Seconds of an asynchronous step of the only worker, in closed form."""
  # The worker's one link carries what several servers send.
  moved = max(machines.fullest / machines.flow,
              machines.mbytes * 1e6 / machines.link)
  return (2 * moved + machines.step_secs
          + machines.fullest / (machines.update_gbytes * 1e9))


def most(machines):
  """Asynchronous steps per second that servers allow, in closed form."""
  return min(machines.link, machines.update_gbytes * 1e9) / machines.fullest


def simulate(machines, workers, steps, sync=False, spread=0.0, seed=0):
  """Returns the `Outcome` of training on these machines.

  Args:
    machines: a `Machines`.
    workers: W.
    steps: of each worker.
    sync: whether all workers make one update together, rather than one each.
    spread: standard deviation of the compute time over its mean (log-normal).
    seed: of the compute times.
  """
  rng, sigma = np.random.RandomState(seed), math.sqrt(math.log(1 + spread**2))
  moved = np.array(machines.shares) * machines.mbytes * 1e6  # [M]
  compute = np.where(np.arange(len(moved)), 0.0, machines.step_secs)
  work = np.array([moved, compute, moved,
                   moved * machines.update_gbytes / machines.sum_gbytes, moved])
  capacity = np.array([machines.link] * 2 + [machines.update_gbytes * 1e9])
  left = np.zeros([workers, len(moved)])  # Of the work of its phase.
  phase = np.zeros(workers, int)
  pulled = [0] * workers  # Number of updates in the weights of each worker.
  now, used, ends, staleness = 0.0, np.zeros([3, len(moved)]), [], []

  def begin(worker, which, factor=1.0):
    """The worker begins a phase."""
    if which == PULL:
      pulled[worker] = len(ends)
    if which == COMPUTE:
      factor *= math.exp(sigma * rng.randn() - sigma**2 / 2)
    left[worker], phase[worker] = work[which] * factor, which

  for worker in range(workers):
    # Asynchronous workers start anywhere in a step.
    begin(worker, *((PULL,) if sync else (COMPUTE, rng.uniform())))
  total = steps if sync else steps * workers
  while len(ends) < total:
    active = left > 0
    uses = np.where(active, _USES[phase][:, np.newaxis], -1)  # [W, M]
    rate = _rates(machines, capacity, uses)
    until = (left[active] / rate[active]).min() if active.any() else 0.0
    now += until
    used += [(rate * (uses == k)).sum(axis=0) * until for k in range(3)]
    left = np.where(left <= rate * until * (1 + 1e-9), 0, left - rate * until)
    for worker in np.flatnonzero(~left.any(axis=1)):
      if phase[worker] in (PULL, COMPUTE):
        begin(worker, phase[worker] + 1)
      elif phase[worker] == PUSH:
        begin(worker, SUM if sync else UPDATE)
      elif phase[worker] == SUM:
        phase[worker] = WAIT
        if (phase == WAIT).all():  # The last worker updates for all.
          begin(worker, UPDATE)
      elif phase[worker] == UPDATE:
        staleness.append(len(ends) - pulled[worker])
        ends.append(now)
        for next_worker in range(workers) if sync else [worker]:
          begin(next_worker, PULL)
  skipped = total // 5  # While it warms up.
  busy = (used / capacity[:, np.newaxis]).max(axis=1) / now
  return Outcome(
      (total - 1 - skipped) / (ends[-1] - ends[skipped])
      * (workers if sync else 1), np.mean(staleness[skipped:]),
      _SHARED[busy.argmax()], busy.max())


def _rates(machines, capacity, uses):
  """How fast the work of each worker at each server is done, [W, M].

  Args:
    machines: a `Machines`.
    capacity: [3], of each of `_SHARED` of a server.
    uses: [W, M], index into `_SHARED`, or -1.
  """
  rates = np.ones(uses.shape)
  for k, most_of_server in enumerate(capacity):
    own = uses == k
    rate = most_of_server / np.maximum(own.sum(axis=0), 1) + np.zeros(own.shape)
    if _SHARED[k] != 'memory':  # The link of the worker, which it shares, too.
      link = machines.link / np.maximum(own.sum(axis=1, keepdims=True), 1)
      rate = np.minimum(rate, np.minimum(link, machines.flow))
    rates[own] = rate[own]
  return rates


def cluster_tables(servers):
  """The lines of the tables of --show=cluster."""
  args = flags.FLAGS
  fullest = _numbers('fullest', float) if args.fullest else [
      1.0 / count for count in servers]
  if len(fullest) != len(servers) or any(
      not 1.0 / count <= share <= 1 or count == 1 != share
      for count, share in zip(servers, fullest)):
    raise UserError(f'--fullest={",".join(args.fullest)}: give a share from 1 '
                    f'/ M to 1 for each of --servers={",".join(args.servers)}')
  workers = _numbers('workers')
  cases = [
      Machines([share] + [(1 - share) / max(1, count - 1)] * (count - 1), link,
               secs, args.mbytes, args.update_gbytes, args.sum_gbytes,
               args.flow_gbits)
      for secs in _numbers('step_secs', float)
      for link in _numbers('gbits', float)
      for count, share in zip(servers, fullest)]
  yield ('| compute, s | Gbit/s | servers | step alone, s | steps/s at most | '
         'workers fed |')
  yield '|' + '---|' * 6
  for case in cases:
    yield (f'| {case.step_secs:g} | {case.gbits:g} | {len(case.shares)} | '
           f'{alone(case):.3f} | {most(case):.1f} | '
           f'{most(case) * alone(case):.1f} |')
  yield ''
  yield ('| compute, s | Gbit/s | servers | workers | asynchronous: steps/s | '
         'of ideal | staleness | busiest | synchronous: steps/s | of ideal |')
  yield '|' + '---|' * 10
  for case in cases:
    for number in workers:
      free, sync = (simulate(case, number, args.steps, is_sync, args.spread,
                             args.seed) for is_sync in (False, True))
      yield (f'| {case.step_secs:g} | {case.gbits:g} | {len(case.shares)} | '
             f'{number} | {free.rate:.2f} | '
             f'{free.rate * case.step_secs / number:.2f} | '
             f'{free.staleness:.1f} | {free.busiest} {100 * free.busy:.0f}% | '
             f'{sync.rate:.2f} | {sync.rate * case.step_secs / number:.2f} |')


def traffic_table(studentnets, servers):
  """The lines of the table of --show=traffic."""
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
      moved = traffic([getattr(x, 'op', x) for x in fetches])
      held = collections.Counter()
      for v in tf.trainable_variables():
        held[v.device] += v.shape.num_elements()
      largest = max(v.shape.num_elements() for v in tf.trainable_variables())
      saved = sum(v.shape.num_elements() * v.dtype.base_dtype.size
                  for v in tf.global_variables())
    trainable, down, up = sum(held.values()), moved['down'], moved['up']
    yield (f'| {studentnet} | {trainable} | {largest * 4 / 1e6:.3f} | '
           f'{saved / 1e6:.1f} | {count} | '
           f'{max(held.values()) / trainable:.3f} | {sum(down) / 1e6:.3f} | '
           f'{sum(up) / 1e6:.3f} | {len(down)} | {len(up)} |')


def traffic(ops):
  """Bytes of every tensor that goes from a server to the worker, or back.

  Args:
    ops: what a step runs.

  Returns:
    'down' and 'up' -> list of bytes; a tensor goes to a machine once.
  """
  moved = {}
  for op in flops.behind(ops):
    for tensor in op.inputs:
      source, target = _place(tensor.op), _place(op)
      if source != target and tensor.dtype.base_dtype != tf.resource:
        size = tensor.shape.num_elements() * tensor.dtype.size
        moved[tensor.name, target] = ('down' if 'ps' in source else 'up', size)
  return {way: [size for other, size in moved.values() if other == way]
          for way in ('down', 'up')}


def _place(op):
  """The task that runs an op, as /job:ps/task:0."""
  for tensor in op.inputs:  # An op runs where the variable it uses is.
    if tensor.dtype.base_dtype == tf.resource:
      return _place(tensor.op)
  for group in op.colocation_groups():
    name = group.decode()[len('loc:@'):]
    if name != op.name:
      return _place(op.graph.get_operation_by_name(name))
  return '/'.join(op.device.split('/')[:3])


if __name__ == '__main__':
  define_flags()
  command.run(main)
