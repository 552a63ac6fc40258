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
import contextlib
import itertools
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
_STEPS = 60  # Simulated steps of a worker.


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
      ('flow_gbits', 13, 'Most Gbit/s, each way, of a worker and a server.'),
      ('spread', 0.1, 'Standard deviation of the seconds that workers compute, '
       'divided by their mean.')):
    flags.DEFINE_float(name, default, about, 1e-6)


def main():
  """Flags -> tables."""
  servers = _numbers('servers', int)
  print('\n'.join(traffic_table(flags.FLAGS.studentnets, servers)
                  if flags.FLAGS.show == 'traffic' else
                  cluster_tables(servers)))


def _numbers(name, kind):
  """The values of a list flag, each an int or float above 0."""
  given = flags.FLAGS[name].value
  with contextlib.suppress(ValueError):
    values = [kind(value) for value in given]
    if all(value > 0 for value in values):
      return values
  raise UserError(f'--{name}={",".join(given)}: give numbers of type '
                  f'{kind.__name__} above 0, with commas between')


class Machines(NamedTuple):
  """The machines of a cluster: M servers, and workers that are all alike."""
  held: List[float]  # [M], bytes of the weights on each server.
  step_secs: float  # A worker computes that long in a step.
  link: float  # Bytes per second of each machine, each way.
  flow: float  # Most bytes per second between a worker and a server.
  update: float  # Bytes of weights that a server updates per second.
  add: float  # Bytes of gradients that a server adds up per second.


def alone(machines):
  """Seconds of an asynchronous step of the only worker, in closed form."""
  fullest = max(machines.held)
  # The worker's one link carries what several servers send.
  moved = max(fullest / min(machines.flow, machines.link),
              sum(machines.held) / machines.link)
  return 2 * moved + machines.step_secs + fullest / machines.update


def most(machines):
  """Asynchronous steps per second that servers allow, in closed form."""
  return min(machines.link, machines.update) / max(machines.held)


def simulate(machines, workers, sync=False, spread=0.0):
  """Simulates training on these machines.

  Args:
    machines: a `Machines`.
    workers: W.
    sync: whether all workers make one update together, rather than one each.
    spread: standard deviation of the compute time over its mean (log-normal).

  Returns:
    (rate, staleness, busy): steps of single workers per second; mean number of
    others' updates from pull to update; what servers share out -> for which
    part of the time it is in use.
  """
  rng, sigma = np.random.RandomState(0), math.sqrt(math.log(1 + spread**2))
  held = np.array(machines.held)
  compute = np.where(np.arange(len(held)), 0.0, machines.step_secs)
  work = held, compute, held, held * machines.update / machines.add, held
  following = {PULL: COMPUTE, COMPUTE: PUSH, PUSH: SUM if sync else UPDATE}
  left = np.zeros([workers, len(held)])  # Of the work of its phase.
  phase = np.zeros(workers, int)
  pulled = [0] * workers  # Number of updates in the weights of each worker.
  now, used, ends, staleness = 0.0, np.zeros([3, len(held)]), [], []

  def begin(worker, which, factor=1.0):
    if which == PULL:
      pulled[worker] = len(ends)
    if which == COMPUTE:
      factor *= math.exp(sigma * rng.randn() - sigma**2 / 2)
    left[worker], phase[worker] = work[which] * factor, which

  for worker in range(workers):
    # Asynchronous workers start anywhere in a step.
    begin(worker, *((PULL,) if sync else (COMPUTE, rng.uniform())))
  total = _STEPS if sync else _STEPS * workers
  while len(ends) < total:
    uses = np.where(left > 0, _USES[phase][:, np.newaxis], -1)  # [W, M]
    rate = _rates(machines, uses)
    until = (left / rate)[left > 0].min()
    now += until
    used += [(rate * (uses == k)).sum(axis=0) * until for k in range(3)]
    left = np.where(left <= rate * until * (1 + 1e-9), 0, left - rate * until)
    for worker in np.flatnonzero(~left.any(axis=1)):
      if left[worker].any():  # It has begun to pull again, in this loop.
        continue
      if phase[worker] in following:
        begin(worker, following[phase[worker]])
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
  capacity = machines.link, machines.link, machines.update
  return ((total - 1 - skipped) / (ends[-1] - ends[skipped])
          * (workers if sync else 1), np.mean(staleness[skipped:]),
          dict(zip(_SHARED, used.max(axis=1) / capacity / now)))


def _rates(machines, uses):
  """How fast the work of each worker at each server is done, [W, M].

  Args:
    machines: a `Machines`.
    uses: [W, M], index into `_SHARED`, or -1.
  """
  rates = np.where(uses < 0, 1.0, machines.update)
  for k in range(3):
    own = uses == k
    sharing = np.maximum(own.sum(axis=0), 1) + np.zeros(own.shape)
    if k == 2:
      rates[own] /= sharing[own]
    else:  # The worker shares its link, too.
      sharing = np.maximum(sharing, own.sum(axis=1, keepdims=True))
      rates[own] = np.minimum(machines.link / sharing, machines.flow)[own]
  return rates


def cluster_tables(servers):
  """The lines of the tables of --show=cluster."""
  args = flags.FLAGS
  fullest = _numbers('fullest', float) or [1.0 / count for count in servers]
  if len(fullest) != len(servers) or any(
      not 1.0 / count <= share <= 1 for count, share in zip(servers, fullest)):
    raise UserError(f'--fullest={",".join(args.fullest)}: give a share from 1 '
                    f'/ M to 1 for each of --servers={",".join(args.servers)}')
  cases = {}  # The first cells of a row -> `Machines`.
  for secs, gbits, (count, share) in itertools.product(
      _numbers('step_secs', float), _numbers('gbits', float),
      zip(servers, fullest)):
    shares = [share] + [(1 - share) / max(1, count - 1)] * (count - 1)
    cases[f'| {secs:g} | {gbits:g} | {count} |'] = Machines(
        [share * args.mbytes * 1e6 for share in shares], secs, gbits * 1e9 / 8,
        args.flow_gbits * 1e9 / 8, args.update_gbytes * 1e9,
        args.sum_gbytes * 1e9)
  yield ('| compute, s | Gbit/s | servers | step alone, s | steps/s at most | '
         'workers fed |')
  yield '|' + '---|' * 6
  for cells, case in cases.items():
    yield (f'{cells} {alone(case):.3f} | {most(case):.1f} | '
           f'{most(case) * alone(case):.1f} |')
  yield ''
  yield ('| compute, s | Gbit/s | servers | workers | asynchronous: steps/s | '
         'of ideal | staleness | busiest | synchronous: steps/s | of ideal |')
  yield '|' + '---|' * 10
  for (cells, case), number in itertools.product(
      cases.items(), _numbers('workers', int)):
    rate, staleness, busy = simulate(case, number, spread=args.spread)
    busiest = max(busy, key=busy.get)
    sync_rate, _, _ = simulate(case, number, True, args.spread)
    ideal = number / case.step_secs
    yield (f'{cells} {number} | {rate:.2f} | {rate / ideal:.2f} | '
           f'{staleness:.1f} | {busiest} {busy[busiest]:.0%} | '
           f'{sync_rate:.2f} | {sync_rate / ideal:.2f} |')


def traffic_table(studentnets, servers):
  """The lines of the table of --show=traffic."""
  yield ('| student | trainable | largest, MB | checkpoint, MB | servers | '
         'fullest, share | down, MB | up, MB | tensors down | up |')
  yield '|' + '---|' * 10
  for studentnet, count in itertools.product(studentnets, servers):
    config = config_lib.TrainConfig(studentnet=studentnet)
    cluster = roles.Cluster(
        {'ps': ('a:1',) * count, 'worker': ('b:1',)}, 'worker', 0)
    with tf.Graph().as_default(), tf.device(
        servers_lib.placement(cluster, config)):
      labels = tf.zeros([config.batch_size], tf.int64)
      step = step_lib.build_step(
          config, datasets.get('cifar10'), 50000, input_pipeline.Batch(
              tf.zeros([config.batch_size, 32, 32, 3]), labels, labels, labels),
          lambda features: tf.ones_like(features[:, 0]), cluster=cluster)
      down, up = traffic([step.train_op, step.done.op, step.loss.op,
                          step.weights_l2.op])
      sizes = [(v.device, v.shape.num_elements())
               for v in tf.trainable_variables()]
      saved = sum(v.shape.num_elements() * v.dtype.base_dtype.size
                  for v in tf.global_variables())
    held = collections.Counter()
    for device, size in sizes:
      held[device] += size
    trainable, largest = sum(held.values()), max(size for _, size in sizes)
    yield (f'| {studentnet} | {trainable} | {largest * 4 / 1e6:.3f} | '
           f'{saved / 1e6:.1f} | {count} | '
           f'{max(held.values()) / trainable:.3f} | {sum(down) / 1e6:.3f} | '
           f'{sum(up) / 1e6:.3f} | {len(down)} | {len(up)} |')


def traffic(ops):
  """Bytes of every tensor that goes from a server to the worker, or back.

  Args:
    ops: what a step runs.

  Returns:
    (down, up): lists of bytes; a tensor goes to a machine once.
  """
  moved = {True: {}, False: {}}  # Whether down -> tensor, target -> bytes.
  for op in flops.behind(ops):
    for tensor in op.inputs:
      source, target = _place(tensor.op), _place(op)
      if source != target and tensor.dtype.base_dtype != tf.resource:
        moved['ps' in source][tensor.name, target] = (
            tensor.shape.num_elements() * tensor.dtype.size)
  return list(moved[True].values()), list(moved[False].values())


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


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
