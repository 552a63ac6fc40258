r"""Times a training step, its parts and its input, beside the least they cost.

    python code/tools/benchmark.py --data_dir=data/cifar10/0.4 \
      --precision=float32 --precision=mixed --output=results/speed.json

Each precision and XLA setting has a process of its own. All of them exist at
the same time, and their rows take turns in several rounds, so that other load
on the machine affects all of them alike. Each row has wall seconds and CPU
seconds (user + system), median and quartiles.

    floor                    two forward passes and one backward pass of the
                             same student on a constant batch, nothing else
    step                     the training step, on a constant batch
    step + input             all of cifar_train_mentormix.py except its hooks
    published step + input   the same algorithm in the form of the published
                             graph, for its family of students; the input of
                             photographs is timed beside tf.data
    mentor ... input         parts of the step, each alone
    matrix product           2048 x 2048, the most that the machine can do

To compare two TensorFlows, run the command once with each. Prints Markdown
tables and writes one JSON file. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import platform
import sys
import time

from absl import flags
import numpy as np

# Tools are not installed; the package is in the folder above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import benchmark_rows

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix import runtime
from mentormix import students
from mentormix.messages import RunError

_ROUNDS = 4
_WARM_UP = 6  # Calls before each round; input pipelines are 4 batches ahead.
_CLOCKS = ('wall', 'cpu')
_processes = multiprocessing.get_context('spawn')
_rows = {}  # In the process of a configuration: name -> `benchmark_rows.Row`.


def define_flags():
  """Defines the flags of this command."""
  flags.DEFINE_string('data_dir', '', 'Directory of a noisy training set.')
  flags.DEFINE_string('dataset_name', 'cifar10', 'The data set.')
  flags.DEFINE_string('studentnet', 'resnet32_thin', 'The student.')
  flags.DEFINE_integer('batch_size', 128, 'Examples per step.')
  flags.DEFINE_integer('image_size', 0, 'Of photographs, as in training.')
  flags.DEFINE_string('image_recipe', 'inception', 'The same.')
  flags.DEFINE_multi_enum('precision', ['float32'], ['float32', 'mixed'],
                          'Give it twice for both.')
  flags.DEFINE_multi_enum('xla', ['false'], ['false', 'true'],
                          'Give it twice for both.')
  flags.DEFINE_string('trained_mentornet_dir',
                      'mentornet_models/mentornet_pd', 'The MentorNet.')
  flags.DEFINE_integer('repeats', 20, 'Timed samples of each row.',
                       lower_bound=1)
  flags.DEFINE_string('device_id', '0', 'GPUs, as in CUDA_VISIBLE_DEVICES.')
  flags.DEFINE_string('output', '', 'Also write all figures to this JSON file.')


def main():
  """Flags -> processes -> figures."""
  args = flags.FLAGS
  configs = [config_lib.TrainConfig(
      train_log_dir='unused', precision=precision, xla=xla == 'true',
      **{name: args[name].value for name in (
          'data_dir', 'dataset_name', 'studentnet', 'batch_size', 'image_size',
          'image_recipe', 'device_id', 'trained_mentornet_dir')})
             for precision in args.precision for xla in args.xla]
  config_lib.validate(configs[0])
  students.get(args.studentnet)
  if args.output:
    files.writable_directory(os.path.dirname(args.output) or '.', 'output')
  figures = dict(
      machine=platform.platform(), cores=os.cpu_count(),
      load=os.getloadavg()[0], command=' '.join(sys.argv),
      tensorflow=runtime.VERSION, tables=[])
  for build, built in ((benchmark_rows.inputs, configs[:1]),
                       (benchmark_rows.steps, configs)):
    figures['tables'] += measure(build, built, args.repeats)
    if args.output:
      files.write_json(args.output, figures)
  print(report(figures))


def measure(build, configs, repeats):
  """Times all rows of some configurations, in turns.

  Args:
    build: config -> (name -> `benchmark_rows.Row`, facts); each configuration
      calls it in a process of its own.
    configs: a list of `config.TrainConfig`s.
    repeats: samples of each row.

  Returns:
    For each configuration a dict of its facts, and of its rows: name -> clock
    -> lower quartile, median and upper quartile, in seconds.

  Raises:
    UserError: of `build`.
    RunError: a process has ended.
  """
  with contextlib.ExitStack() as stack:
    workers = [stack.enter_context(concurrent.futures.ProcessPoolExecutor(
        1, _processes)) for _ in configs]
    try:
      waiting = [worker.submit(_build, build, config)
                 for worker, config in zip(workers, configs)]
      names, facts = zip(*[future.result() for future in waiting])
      samples = [{name: [] for name in rows} for rows in names]
      for part in np.array_split(range(repeats), min(_ROUNDS, repeats)):
        for name in dict.fromkeys(itertools.chain(*names)):
          for worker, found in zip(workers, samples):
            if name in found:
              found[name] += worker.submit(_time, name, len(part)).result()
    except concurrent.futures.process.BrokenProcessPool:
      raise RunError('a process of the benchmark has ended; if the lines above '
                     'do not say why, it may have run out of memory')
  spread = lambda seconds: dict(zip(_CLOCKS, np.percentile(
      seconds, [25, 50, 75], axis=0).T.tolist()))
  return [dict(facts=dict(config._asdict(), **about),
               rows={name: spread(seconds) for name, seconds in found.items()})
          for config, about, found in zip(configs, facts, samples)]


def _build(build, config):
  """Builds the rows of this process; returns (their names, facts)."""
  rows, facts = build(config)
  _rows.update(rows)
  _settle()
  return list(rows), facts


def _time(name, samples):
  """Times a row of this process: (wall, cpu) seconds of a call per sample."""
  row, seconds = _rows[name], []
  for _ in range(_WARM_UP):
    row.run()
  for _ in range(samples):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(row.calls):
      row.run()
    seconds.append(((time.perf_counter() - wall) / row.calls,
                    (time.process_time() - cpu) / row.calls))
  _settle()
  return seconds


def _settle():
  """Waits until the queues are full and the threads have stopped spinning."""
  for _ in range(500):
    cpu = time.process_time()
    time.sleep(0.02)
    if time.process_time() - cpu < 0.002:
      return


def report(figures):
  """The figures as Markdown."""
  lines = ['{machine}, {cores} cores, load {load:.1f} at the start, TensorFlow '
           '{tensorflow}'.format(**figures)]
  for table in figures['tables']:
    facts, rows = table['facts'], table['rows']
    first, base = next(iter(rows.items()))
    lines += ['', f'## {facts["title"]}', '',
              f'| | wall, ms | CPU, ms | / {first}, wall | / {first}, CPU | '
              'images/s | GFLOP/s |', '|' + '---|' * 7]
    for name, row in rows.items():
      cells = [name]
      for clock in _CLOCKS:
        low, median, high = (1e3 * seconds for seconds in row[clock])
        cells.append(f'{median:.2f} ({low:.2f} to {high:.2f})')
      cells += [f'{row[clock][1] / base[clock][1]:.3f}' for clock in _CLOCKS]
      seconds = row['wall'][1]
      cells.append(f'{facts["batch_size"] / seconds:.0f}')
      counted = facts['operations'].get(name)
      cells.append(f'{counted / seconds / 1e9:.1f}' if counted else '')
      lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
