r"""Times a training step, its parts and its input, beside the least they cost.

    python code/tools/benchmark.py --data_dir=data/cifar10/0.4 \
      --studentnets=resnet32_thin,resnet32 --precisions=float32,mixed \
      --output=results/speed.json

Each precision and XLA setting has a process of its own. The processes of one
student and batch size exist at the same time, and their rows take turns in
several rounds, so that other load on the machine affects all of them alike.
Each row has wall seconds and CPU seconds (user + system), median and quartiles.

    floor                    two forward passes and one backward pass of the
                             same student on a constant batch, nothing else
    step                     the training step, on a constant batch
    step + input             all of cifar_train_mentormix.py except its hooks
    step + input + summaries the same, with summaries written in every step
    published step + input   the same algorithm in the form of the published
                             graph
    mentor ... input         parts of the step, each alone
    matrix product           2048 x 2048, the most that the machine can do

To compare two TensorFlows, run the command once with each. Prints Markdown
tables and writes one JSON file. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import concurrent.futures
import contextlib
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
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
from mentormix.messages import UserError

_ROUNDS = 4
_CLOCKS = ('wall', 'cpu')
_processes = multiprocessing.get_context('spawn')
_rows = {}  # In the process of a configuration: name -> `benchmark_rows.Row`.


def define_flags():
  """Defines the flags of this command."""
  flags.DEFINE_string('data_dir', '', 'Directory of a noisy training set.')
  flags.DEFINE_string('dataset_name', 'cifar10', 'The data set.')
  flags.DEFINE_list('studentnets', ['resnet32_thin'], 'The students.')
  flags.DEFINE_list('batch_sizes', ['128'], 'Examples per step.')
  flags.DEFINE_list('precisions', ['float32'], 'float32, mixed, or both.')
  flags.DEFINE_list('xla', ['false'], 'false, true, or both.')
  flags.DEFINE_string('trained_mentornet_dir',
                      'mentornet_models/mentornet_pd', 'The MentorNet.')
  flags.DEFINE_integer('repeats', 20, 'Timed samples of each row.',
                       lower_bound=1)
  flags.DEFINE_string('device_id', '0', 'GPUs, as in CUDA_VISIBLE_DEVICES.')
  flags.DEFINE_string('output', '', 'Also write all figures to this JSON file.')
  for name in ('data_dir', 'studentnets', 'batch_sizes', 'precisions', 'xla'):
    flags.register_validator(name, bool, 'must be given')


def main():
  """Flags -> processes -> figures."""
  args = flags.FLAGS
  groups = _configurations(args)
  if args.output:
    if os.path.isdir(args.output):
      raise UserError(f'--output={args.output} is a directory; name a file')
    files.writable_directory(os.path.dirname(args.output) or '.', 'output')
  figures = dict(facts=_facts(), tables=[])
  inputs = {configs[0].batch_size: configs[0] for configs in groups}
  for build, configs in (
      [(benchmark_rows.inputs, [config]) for config in inputs.values()]
      + [(benchmark_rows.steps, configs) for configs in groups]):
    figures['tables'] += measure(build, configs, args.repeats)
    if args.output:
      files.write_json(args.output, figures)
  print(report(figures))


def _configurations(args):
  """The `config.TrainConfig`s, a list for each student and batch size."""
  if not set(args.xla) <= {'false', 'true'}:
    raise UserError(f'--xla={",".join(args.xla)}: use false, true, or both')
  groups = []
  for name in args.studentnets:
    students.get(name)
    for size in args.batch_sizes:
      if not size.isdigit():
        raise UserError(f'--batch_sizes: {size!r} is not a number')
      groups.append([config_lib.TrainConfig(
          dataset_name=args.dataset_name, data_dir=args.data_dir,
          trained_mentornet_dir=args.trained_mentornet_dir,
          train_log_dir='unused', device_id=args.device_id, studentnet=name,
          batch_size=int(size), precision=precision, xla=xla == 'true')
                     for precision in args.precisions for xla in args.xla])
      for config in groups[-1]:
        config_lib.validate(config)
  return groups


def _facts():
  """What the figures depend on: the machine, the code and the command."""
  cpu = platform.processor()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo') as f:
      cpu = next((line.partition(':')[2].strip() for line in f
                  if line.startswith('model name')), cpu)
  return dict(
      date=time.strftime('%Y-%m-%d'), machine=platform.platform(), cpu=cpu,
      cores=os.cpu_count(), load=os.getloadavg()[0],
      gpu=_output_of('nvidia-smi', '--query-gpu=name', '--format=csv,noheader'),
      commit=_output_of('git', '-C', os.path.dirname(os.path.abspath(__file__)),
                        'describe', '--always', '--dirty', '--abbrev=12'),
      command=' '.join(sys.argv), tensorflow=runtime.VERSION,
      python=platform.python_version())


def _output_of(*words):
  """What a command prints; None if it is missing or fails."""
  try:
    return subprocess.check_output(
        words, stderr=subprocess.DEVNULL, universal_newlines=True).strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def measure(build, configs, repeats):
  """Times all rows of some configurations, in turns.

  Args:
    build: (config, directory for files) -> (name -> `benchmark_rows.Row`,
      facts); each configuration calls it in a process of its own.
    configs: a list of `config.TrainConfig`s.
    repeats: samples of each row.

  Returns:
    For each configuration a dict of its facts, and of its rows: name -> clock
    -> median and quartiles, in seconds.

  Raises:
    UserError: of `build`.
    RunError: a process has ended.
  """
  with contextlib.ExitStack() as stack:
    scratch = stack.enter_context(tempfile.TemporaryDirectory())
    workers = [stack.enter_context(concurrent.futures.ProcessPoolExecutor(
        1, _processes)) for _ in configs]
    try:
      waiting = [worker.submit(_build, build, config, scratch)
                 for worker, config in zip(workers, configs)]
      names, facts = zip(*[future.result() for future in waiting])
      samples = _take_turns(workers, names, repeats)
    except concurrent.futures.process.BrokenProcessPool:
      raise RunError('a process of the benchmark has ended; if the lines above '
                     'do not say why, it may have run out of memory')
  shown = ('studentnet', 'batch_size', 'precision', 'xla')
  return [dict(
      facts=dict({name: getattr(config, name) for name in shown}, **about),
      rows={name: dict(zip(_CLOCKS, map(_spread, zip(*seconds))))
            for name, seconds in found.items()})
          for config, about, found in zip(configs, facts, samples)]


def _take_turns(workers, names, repeats):
  """Times rows, in turns.

  Args:
    workers: an executor for each configuration.
    names: the names of the rows of each configuration.
    repeats: samples of each row.

  Returns:
    For each configuration: name -> list of (wall, cpu).
  """
  samples = [{name: [] for name in rows} for rows in names]
  rounds = min(_ROUNDS, repeats)
  for k in range(rounds):
    count = repeats * (k + 1) // rounds - repeats * k // rounds
    for name in dict.fromkeys(name for rows in names for name in rows):
      for worker, found in zip(workers, samples):
        if name in found:
          found[name] += worker.submit(_time, name, count).result()
  return samples


def _build(build, config, scratch):
  """Builds the rows of this process; returns (their names, facts)."""
  rows, facts = build(config, scratch)
  _rows.update(rows)
  _settle()
  return list(rows), facts


def _time(name, samples):
  """Times a row of this process: (wall, cpu) seconds of a call per sample."""
  row, seconds = _rows[name], []
  for sample in range(-row.warm_up, samples):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(row.calls):
      row.run()
    if sample >= 0:
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


def _spread(seconds):
  low, median, high = np.percentile(seconds, [25, 50, 75])
  return dict(quartile_1=low, median=median, quartile_3=high)


def report(figures):
  """The figures as Markdown."""
  facts = figures['facts']
  gpu = f', {facts["gpu"]}' if facts['gpu'] else ''
  lines = [f'{facts["cpu"]}, {facts["cores"]} cores{gpu}, load '
           f'{facts["load"]:.1f} at the start, commit {facts["commit"]}, '
           f'TensorFlow {facts["tensorflow"]}, Python {facts["python"]}']
  for found in figures['tables']:
    lines += ['', *_table(found['facts'], found['rows'])]
  return '\n'.join(lines)


def _table(facts, rows):
  """Lines of the table of a configuration, or of the input alone."""
  first, base = next(iter(rows.items()))
  if first == benchmark_rows.FLOOR:
    xla = ' with XLA' if facts['xla'] else ''
    yield (f'## {facts["studentnet"]}, batch {facts["batch_size"]}, '
           f'{facts["precision"]}{xla}')
    yield ''
    yield (f'A process that only trains takes {facts["peak_memory_mib"]:.0f} '
           'MiB.')
  else:
    yield f'## Input, batch {facts["batch_size"]}'
  yield ''
  yield (f'| | wall, ms | CPU, ms | / {first}, wall | / {first}, CPU | '
         'images/s | GFLOP/s |')
  yield '|---|---|---|---|---|---|---|'
  for name, row in rows.items():
    seconds = row['wall']['median']
    cells = [name]
    for clock in _CLOCKS:
      median, low, high = (1e3 * row[clock][key] for key in (
          'median', 'quartile_1', 'quartile_3'))
      cells.append(f'{median:.2f} ({low:.2f} to {high:.2f})')
    cells += [f'{row[clock]["median"] / base[clock]["median"]:.3f}'
              for clock in _CLOCKS]
    cells.append(f'{facts["batch_size"] / seconds:.0f}')
    counted = facts.get('operations', {}).get(name)
    cells.append(f'{counted / seconds / 1e9:.1f}' if counted else '')
    yield f'| {" | ".join(cells)} |'


if __name__ == '__main__':
  define_flags()
  command.run(main)
