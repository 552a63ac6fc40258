"""Times a training step, its parts and its input, next to what they must cost.

    python code/benchmark.py --data_dir=data/cifar10/0.4 \\
      --studentnets=resnet32_thin,resnet32 \\
      --pythons=.venv-tf1/bin/python,.venv-tf2/bin/python \\
      --precisions=float32,mixed --output=results/speed.json

Every Python, precision and XLA setting is a process of its own; all of those of
one student and batch size are there at once, and their rows take turns, several
rounds of them, so that whatever else the machine does disturbs all alike. Each
row has wall seconds and CPU seconds (user + system), median and quartiles.

    floor                    two forward passes and one backward pass of the
                             same student on a constant batch, nothing else
    step                     the training step, on a constant batch
    step + input             all of cifar_train_mentormix.py, but for its hooks
    step + input + summaries the same, summaries written at every step
    published step + input   the same algorithm as the published graph has it
    mentor ... input         parts of the step, each alone
    matrix product           2048 x 2048, the most that the machine can do

Prints Markdown tables and writes one JSON. Exit codes: 0 finished, 1 failed,
2 bad input.
"""
import collections
import functools
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from absl import flags
import numpy as np

from mentormix import command
from mentormix import config as config_lib
from mentormix import files
from mentormix.command import RunError
from mentormix.command import UserError

FLOOR = 'floor'
STEP = 'step'
INPUT_STEP = 'step + input'
SUMMARIES_STEP = 'step + input + summaries'
PUBLISHED_STEP = 'published step + input'
MATRIX_PRODUCT = 'matrix product'
OURS, PUBLISHED = 'ours', 'published'  # The two input pipelines.
THREADS = (1, 2, 4)  # Of an input pipeline.
PUBLISHED_THREADS = 4  # Of the published step.
PRODUCT = 2048  # Rows and columns of the matrix product.

_ROUNDS = 4
_BEYOND_QUEUES = 6  # Steps of warm-up: input pipelines are 4 batches ahead.
_MEMORY_STEPS = 5
_START = 'import sys; sys.path[0] = %r; import benchmark; benchmark.serve()'
_CLOCKS = ('wall', 'cpu')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('data_dir', '', 'Directory of a noisy training set.')
  flags.register_validator('data_dir', bool, 'must be given')
  flags.DEFINE_string('dataset_name', 'cifar10', 'The data set.')
  flags.DEFINE_list('studentnets', ['resnet32_thin'], 'The students.')
  flags.DEFINE_list('batch_sizes', ['128'], 'Examples per step.')
  flags.DEFINE_list('pythons', [sys.executable],
                    'The interpreters, each with its TensorFlow.')
  flags.DEFINE_list('precisions', ['float32'], 'float32, mixed, or both.')
  flags.DEFINE_list('xla', ['false'], 'false, true, or both.')
  flags.DEFINE_string('trained_mentornet_dir',
                      'mentornet_models/mentornet_pd', 'The MentorNet.')
  flags.DEFINE_integer('repeats', 20, 'Timed samples of each row.',
                       lower_bound=1)
  flags.DEFINE_string('device_id', '0', 'GPUs, as in CUDA_VISIBLE_DEVICES.')
  flags.DEFINE_string('output', '', 'Also write all figures to this JSON file.')


def main():
  """Flags -> processes -> figures."""
  args = flags.FLAGS
  pythons = _each('pythons', shutil.which, 'a program that can be run')
  studentnets = _each('studentnets', bool, 'the name of a student')
  batch_sizes = [int(size) for size in _each(
      'batch_sizes', lambda x: x.isdigit() and int(x) > 0,
      'a number of at least 1')]
  precisions = _each('precisions', config_lib.PRECISIONS.__contains__,
                     'one of %s' % ', '.join(config_lib.PRECISIONS))
  xla = [value == 'true' for value in _each(
      'xla', ('false', 'true').__contains__, 'true or false')]
  base = config_lib.TrainConfig(
      dataset_name=args.dataset_name, data_dir=args.data_dir,
      trained_mentornet_dir=args.trained_mentornet_dir,
      train_log_dir='unused', device_id=args.device_id)
  config_lib.validate(base)
  if args.output:
    if os.path.isdir(args.output):
      raise UserError('--output=%s is a directory; name a file' % args.output)
    files.writable_directory(os.path.dirname(args.output) or '.', 'output')

  figures = collections.OrderedDict(
      facts=_facts(), refused=[], inputs=[], configurations=[])
  with tempfile.TemporaryDirectory() as scratch:
    start = functools.partial(_Child, scratch=scratch)
    able = []  # Pairs (python, precision).
    for python in pythons:
      refused = _facts_of(start(python, 'check', base, studentnets=studentnets,
                                precisions=precisions))['refused']
      able += [(python, precision) for precision in precisions
               if precision not in refused]
      figures['refused'] += ['%s (%s)' % (line, python)
                             for line in refused.values()]
    if not able:
      raise UserError(figures['refused'][0])
    for batch_size in batch_sizes:
      figures['inputs'] += _measure(
          [start(python, 'input', base._replace(batch_size=batch_size))
           for python in pythons], args.repeats)
      _write(figures)
    for studentnet in studentnets:
      for batch_size in batch_sizes:
        configs = [(python, base._replace(
            studentnet=studentnet, batch_size=batch_size, precision=precision,
            xla=use_xla)) for python, precision in able for use_xla in xla]
        # One by one and before the others: nothing else is in the memory then.
        peaks = [_facts_of(start(python, 'memory', config))['peak_memory_mib']
                 for python, config in configs]
        measured = _measure([start(python, 'step', config)
                             for python, config in configs], args.repeats)
        for found, peak in zip(measured, peaks):
          found['facts']['peak_memory_mib'] = peak
        figures['configurations'] += measured
        _write(figures)
  add_ratios(figures)
  _write(figures)
  print(report(figures))


def _each(name, is_good, what):
  """The values of a list flag, each checked, none twice."""
  values = [value.strip() for value in flags.FLAGS[name].value]
  for value in values or ['']:
    if not is_good(value):
      raise UserError('--%s=%s: %r is not %s' % (
          name, ','.join(values), value, what))
  if len(set(values)) < len(values):
    raise UserError('--%s=%s names one twice' % (name, ','.join(values)))
  return values


def _facts():
  """What the figures rest on: the machine, the code and the command."""
  model = platform.processor()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo') as f:
      models = [line.partition(':')[2].strip() for line in f
                if line.startswith('model name')]
    model = models[0] if models else model
  cores = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
           else os.cpu_count())
  prefixes = ('OMP_', 'KMP_', 'MKL_', 'ONEDNN_', 'DNNL_', 'XLA_', 'TF_XLA_',
              'TF_NUM_', 'TF_ENABLE_', 'TF_DISABLE_')
  return collections.OrderedDict(
      date=time.strftime('%Y-%m-%d'), machine=platform.platform(), cpu=model,
      cores=cores, gpu=_output_of('nvidia-smi', '--query-gpu=name',
                                  '--format=csv,noheader'),
      load=os.getloadavg()[0],
      commit=_output_of('git', '-C', os.path.dirname(os.path.abspath(__file__)),
                        'describe', '--always', '--dirty', '--abbrev=12'),
      command=' '.join(sys.argv),
      environment={k: v for k, v in sorted(os.environ.items())
                   if k.startswith(prefixes)})


def _output_of(*words):
  """What a command prints; None where it is missing or fails."""
  try:
    return subprocess.check_output(
        words, stderr=subprocess.DEVNULL, universal_newlines=True).strip()
  except (OSError, subprocess.CalledProcessError):
    return None


class _Child(object):
  """Another process: a Python with its TensorFlow, and rows to be timed.

  It is built from the moment on that it is made, beside others.
  """

  def __init__(self, python, kind, config, scratch, **more):
    """Starts it.

    Args:
      python: the interpreter.
      kind: a key of `_KINDS`.
      config: a `config.TrainConfig`.
      scratch: a directory for its files.
      **more: what this kind needs to know besides.
    """
    self.facts = collections.OrderedDict(
        python=python, studentnet=config.studentnet,
        batch_size=config.batch_size, precision=config.precision,
        xla=config.xla)
    self._python = python
    self._errors = tempfile.TemporaryFile(mode='w+', dir=scratch)
    self._process = subprocess.Popen(
        [python, '-c', _START % os.path.dirname(os.path.abspath(__file__))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        universal_newlines=True)
    self._send(kind=kind, config=config._asdict(), scratch=scratch, **more)

  def wait_until_ready(self):
    """Returns the names of its rows."""
    ready = self._receive()
    self.facts.update(ready['facts'])
    return ready['rows']

  def time(self, row, samples):
    """Returns (wall, cpu), lists of seconds."""
    self._send(row=row, samples=samples)
    return self._receive()['seconds']

  def close(self):
    self._process.kill()
    self._process.communicate()
    self._errors.close()

  def _send(self, **message):
    try:
      self._process.stdin.write(json.dumps(message) + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # It has ended; reading what it last said tells why.

  def _receive(self):
    line = self._process.stdout.readline()
    if not line:
      code = self._process.wait()
      self._errors.seek(0)
      said = self._errors.read().strip().splitlines() or ['']
      raise RunError('--pythons: %s ended with exit code %d while it measured '
                     '%s: %s' % (self._python, code, ', '.join(
                         '%s %s' % pair for pair in self.facts.items()
                         if pair[0] != 'python'), said[-1]))
    message = json.loads(line)
    if 'error' in message:
      raise UserError('%s (%s)' % (message['error'], self._python))
    return message


def _measure(children, repeats):
  """Times all rows of all children, in turns, and ends the children.

  Args:
    children: `_Child`s.
    repeats: samples of each row.

  Returns:
    For each child a dict: its facts, and by row the seconds of each clock, as
    median and quartiles.
  """
  try:
    names = [child.wait_until_ready() for child in children]
    every = list(collections.OrderedDict.fromkeys(sum(names, [])))
    samples = [collections.OrderedDict((name, ([], [])) for name in its)
               for its in names]
    rounds = min(_ROUNDS, repeats)
    for k in range(rounds):
      count = repeats * (k + 1) // rounds - repeats * k // rounds
      for name in every:
        for child, its in zip(children, samples):
          if name in its:
            for all_of_it, new in zip(its[name], child.time(name, count)):
              all_of_it += new
    return [dict(facts=child.facts, rows=collections.OrderedDict(
        (name, dict(zip(_CLOCKS, map(_spread, seconds))))
        for name, seconds in its.items()))
            for child, its in zip(children, samples)]
  finally:
    for child in children:
      child.close()


def _spread(seconds):
  low, median, high = np.percentile(seconds, [25, 50, 75])
  return dict(quartile_1=low, median=median, quartile_3=high)


def _facts_of(child):
  """What a child without rows has found."""
  try:
    child.wait_until_ready()
    return child.facts
  finally:
    child.close()


def _write(figures):
  """Writes --output, whole or not at all; also while more is to come."""
  path = flags.FLAGS.output
  if path:
    with files.replaced(path) as f:
      json.dump(figures, f, indent=2)
      f.write('\n')


# The figures ----------------------------------------------------------------


def add_ratios(figures):
  """Adds to every configuration what its figures come to.

  Args:
    figures: what `main` collects. A configuration gets `ratios`: name -> a
      dict of wall and CPU.
  """
  by_facts = {_key(found['facts']): found
              for found in figures['configurations']}
  inputs = {_key(found['facts'], False): found for found in figures['inputs']}
  for found in figures['configurations']:
    rows, facts = found['rows'], found['facts']
    ratios = found['ratios'] = collections.OrderedDict()
    for name in (STEP, INPUT_STEP, SUMMARIES_STEP):
      ratios['%s / floor' % name] = _ratio(rows[name], rows[FLOOR])
    if PUBLISHED_STEP in rows:
      ratios['published step + input / ours'] = _ratio(
          rows[PUBLISHED_STEP], rows[INPUT_STEP])
    threads = config_lib.TrainConfig().num_preprocessing_threads
    ratios['input, images/s / what the step takes'] = _ratio(
        rows[STEP], inputs[_key(facts, False)]['rows'][_input(OURS, threads)])
    for setting, other in (('precision', 'float32'), ('xla', False)):
      beside = by_facts.get(_key(dict(facts, **{setting: other})))
      if facts[setting] != other and beside:
        ratios['step + input, %s %s / %s' % (
            setting, other, facts[setting])] = _ratio(
                beside['rows'][INPUT_STEP], rows[INPUT_STEP])


def _key(facts, whole=True):
  """What tells a configuration, or the input of one, from others."""
  names = ['python', 'batch_size']
  return tuple(facts[name] for name in names + (
      ['studentnet', 'precision', 'xla'] if whole else []))


def _input(pipeline, threads):
  """Name of the row of an input pipeline."""
  return '%s, %d thread%s' % (pipeline, threads, '' if threads == 1 else 's')


def _ratio(above, below):
  return {clock: above[clock]['median'] / below[clock]['median']
          for clock in _CLOCKS}


def report(figures):
  """The figures as Markdown."""
  facts = figures['facts']
  lines = ['%s, %d cores%s, load %.1f at the start, commit %s' % (
      facts['cpu'], facts['cores'],
      ', %s' % facts['gpu'] if facts['gpu'] else '', facts['load'],
      facts['commit'])]
  for found in figures['inputs']:
    lines += _input_table(found)
  for found in figures['configurations']:
    lines += _step_table(found)
  lines += ['', '## Ratios', '',
            '| | ratio | wall | CPU |', '|---|---|---|---|']
  for found in figures['configurations']:
    for name, ratio in found['ratios'].items():
      lines.append('| %s | %s | %.2f | %.2f |' % (
          _title(found['facts']), name, ratio['wall'], ratio['cpu']))
  return '\n'.join(lines)


def _title(facts):
  return '%s, batch %d, %s%s, TensorFlow %s' % (
      facts['studentnet'], facts['batch_size'], facts['precision'],
      ' with XLA' if facts['xla'] else '', facts['tensorflow'])


def _input_table(found):
  facts, rows = found['facts'], found['rows']
  yield ''
  yield '## Input, batch %d, TensorFlow %s' % (facts['batch_size'],
                                               facts['tensorflow'])
  yield ''
  yield ('| threads | ours, images/s | of CPU | published, images/s | of CPU | '
         'ours / published | of CPU |')
  yield '|---|---|---|---|---|---|---|'
  for threads in THREADS:
    ours, published = rows[_input(OURS, threads)], rows[
        _input(PUBLISHED, threads)]
    ratio = _ratio(published, ours)
    yield '| %d | %.0f | %.0f | %.0f | %.0f | %.2f | %.2f |' % (
        (threads,) + tuple(facts['batch_size'] / row[clock]['median']
                           for row in (ours, published) for clock in _CLOCKS)
        + (ratio['wall'], ratio['cpu']))


def _step_table(found):
  facts, rows = found['facts'], found['rows']
  yield ''
  yield '## ' + _title(facts)
  yield ''
  yield '%s; a process that only trains takes %d MiB' % (
      facts['python'], facts['peak_memory_mib'])
  yield ''
  yield '| | wall, ms | CPU, ms | / floor, wall | / floor, CPU | GFLOP/s |'
  yield '|---|---|---|---|---|---|'
  for name, row in rows.items():
    ratio = _ratio(row, rows[FLOOR])
    of_floor = '%.3f | %.3f' % (ratio['wall'], ratio['cpu'])
    operations = facts['operations'].get(name)
    speed = '' if operations is None else '%.1f' % (
        operations / row['wall']['median'] / 1e9)
    yield '| %s | %s | %s | %s | %s |' % (
        name, _milliseconds(row['wall']), _milliseconds(row['cpu']),
        ' | ' if name.startswith(MATRIX_PRODUCT) else of_floor, speed)


def _milliseconds(spread):
  return '%.2f (%.2f to %.2f)' % tuple(
      1e3 * spread[name] for name in ('median', 'quartile_1', 'quartile_3'))


# The other process ----------------------------------------------------------


class _Row(collections.namedtuple('Row', 'run calls warm_up')):
  """What is timed.

  Attributes:
    run: a callable without arguments.
    calls: how many calls make a sample.
    warm_up: samples that do not count, in every turn.
  """
  __slots__ = ()


def serve():
  """Builds what the first line of stdin asks for; times a row for each other.

  Every line, and every reply on stdout, is a JSON object.
  """
  replies = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # Nothing else may come between the replies.

  def reply(**message):
    replies.write(json.dumps(message) + '\n')
    replies.flush()

  job = json.loads(sys.stdin.readline())
  config = config_lib.TrainConfig(**job['config'])
  try:
    rows, facts = _KINDS[job['kind']](config, job)
  except UserError as error:
    reply(error=str(error))
    return
  _settle()
  reply(rows=list(rows), facts=facts)
  for line in sys.stdin:
    turn = json.loads(line)
    reply(seconds=_time(rows[turn['row']], turn['samples']))


def _time(row, samples):
  """Seconds of one call, each sample: (wall, cpu)."""
  seconds = []
  for sample in range(-row.warm_up, samples):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(row.calls):
      row.run()
    if sample >= 0:
      seconds.append(((time.perf_counter() - wall) / row.calls,
                      (time.process_time() - cpu) / row.calls))
  _settle()
  return tuple(zip(*seconds))


def _settle():
  """Waits until the queues are full and the threads have stopped spinning."""
  for _ in range(500):
    cpu = time.process_time()
    time.sleep(0.02)
    if time.process_time() - cpu < 0.002:
      return


class _Data(collections.namedtuple('Data', 'dataset files count network')):
  """What a step is built on.

  Attributes:
    dataset: a `datasets.Dataset`.
    files: paths of its TFRecords.
    count: how many records they hold.
    network: the MentorNet.
  """
  __slots__ = ()


def _data(config):
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix import mentornet
  from mentormix import runtime
  runtime.select_device(config.device_id)
  dataset = datasets.get(config.dataset_name, config.data_dir)
  paths = datasets.find_files(dataset, 'train', config.data_dir)
  paths, count = datasets.check_files(dataset, 'train', paths)
  return _Data(dataset, paths, count, mentornet.load(
      config.trained_mentornet_dir, config.loss_p_percentile))


def _session(config):
  """A session on the default graph as training has it, queues running."""
  from mentormix import runtime  # pylint: disable=g-import-not-at-top
  tf = runtime.tf
  session = tf.Session(config=runtime.session_config(
      config.precision, config.xla))
  with runtime.without_xla():
    session.run([tf.global_variables_initializer(),
                 tf.local_variables_initializer()])
  tf.train.start_queue_runners(session)
  return session


def _facts_of_runtime():
  from mentormix import runtime  # pylint: disable=g-import-not-at-top
  return dict(tensorflow=runtime.VERSION,
              python_version=platform.python_version())


def _check(config, job):
  """What cannot be checked without TensorFlow."""
  from mentormix import runtime  # pylint: disable=g-import-not-at-top
  from mentormix import students  # pylint: disable=g-import-not-at-top
  for name in job['studentnets']:
    if name not in students.STUDENTS:
      raise UserError('--studentnets=%s: %s is unknown; known are %s' % (
          ','.join(job['studentnets']), name,
          ', '.join(sorted(students.STUDENTS))))
  _data(config)
  refused = {}
  for precision in job['precisions']:
    try:
      runtime.check_precision(precision)
    except UserError as error:
      refused[precision] = str(error)
  return {}, {'refused': refused}


def _input_rows(config, unused_job):
  """Both input pipelines by number of threads."""
  # pylint: disable=g-import-not-at-top
  from mentormix import input_pipeline
  from mentormix import published_graph
  from mentormix.runtime import tf
  data = _data(config)
  rows = collections.OrderedDict()
  for threads in THREADS:
    for name, pipeline in ((OURS, input_pipeline),
                           (PUBLISHED, published_graph)):
      with tf.Graph().as_default():
        batch = _train_batch(pipeline, config, data, threads)
        rows[_input(name, threads)] = _batches(_session(config), batch)
  return rows, _facts_of_runtime()


def _train_batch(pipeline, config, data, threads):
  return pipeline.train_batch(
      data.dataset, data.files, data.count, config.batch_size,
      num_readers=config.num_readers, num_threads=threads)


def _batches(session, batch):
  ops = [batch.images.op, batch.labels.op]
  return _Row(functools.partial(session.run, ops), _BEYOND_QUEUES, 1)


def _step_rows(config, job):
  """The step, whole and in parts."""
  # pylint: disable=g-import-not-at-top
  from mentormix import input_pipeline
  from mentormix import operations
  from mentormix import published_graph
  from mentormix import runtime
  from mentormix import students
  from mentormix import summaries
  from mentormix.runtime import tf
  data = _data(config)
  rows, counted = collections.OrderedDict(), {}

  def add(name, session, ops, fed=None, warm_up=3):
    """A row with its operations counted."""
    counted[name] = operations.count(ops)
    rows[name] = _Row(functools.partial(session.run, ops, fed), 1, warm_up)

  with tf.Graph().as_default():
    ops = _floor(config, data)
    add(FLOOR, _session(config), ops)

  with tf.Graph().as_default():
    batch, ops = _build_step(config, data, input_pipeline,
                             config.num_preprocessing_threads)
    summary = tf.summary.merge_all()
    shown = [s.op.inputs[1] for s in tf.get_collection(tf.GraphKeys.SUMMARIES)]
    writer = summaries.Writer(tempfile.mkdtemp(dir=job['scratch']))
    step_session = _session(config)
    fixed = dict(zip(batch, step_session.run(batch)))
    shown = dict(zip(shown, step_session.run(shown, fixed)))
    add(STEP, step_session, ops, fixed)
    add(INPUT_STEP, step_session, ops, warm_up=_BEYOND_QUEUES)
    with_summary = [summary] + ops
    rows[SUMMARIES_STEP] = _Row(lambda: writer.add_summary(
        step_session.run(with_summary)[0], 0), 1, _BEYOND_QUEUES)

  if config.precision == 'float32' and not config.xla:
    name = PUBLISHED + '_' + config.studentnet
    students.STUDENTS[name] = functools.partial(
        published_graph.resnet, **students.get(config.studentnet).keywords)
    with tf.Graph().as_default():
      _, ops = _build_step(config._replace(studentnet=name), data,
                           published_graph, PUBLISHED_THREADS)
      add(PUBLISHED_STEP, _session(config), ops, warm_up=_BEYOND_QUEUES)

  with tf.Graph().as_default():
    parts = _parts(config, data)
    session = _session(config)
    for name, ops in parts.items():
      rows[name] = _Row(functools.partial(session.run, ops), 5, 3)
  rows['summaries'] = _Row(lambda: writer.add_summary(
      step_session.run(summary, shown), 0), 5, 3)
  rows['input'] = _batches(step_session, batch)

  for dtype in sorted({tf.float32, runtime.arithmetic(config.precision)},
                      key=lambda dtype: -dtype.size):
    with tf.Graph().as_default():
      matrix = tf.Variable(tf.cast(
          tf.random.normal([PRODUCT, PRODUCT]), dtype))
      product = _keep(tf.matmul(matrix, matrix), matrix.shape)
      add('%s, %s' % (MATRIX_PRODUCT, dtype.name),
          _session(config._replace(xla=False)), [product])  # The library's own.
  return rows, dict(_facts_of_runtime(), operations=counted)


def _build_step(config, data, pipeline, threads):
  """A whole step as in training: (batch, ops)."""
  # pylint: disable=g-import-not-at-top
  from mentormix import datasets
  from mentormix import training
  from mentormix.runtime import tf
  batch = _train_batch(pipeline, config, data, threads)
  step = training.build_step(config, data.dataset, data.count, batch,
                             data.network)
  if datasets.has_clean_labels(data.files):
    training.summarize_separation(
        step.v, tf.equal(batch.labels, batch.clean_labels))
  # With what training looks at in every step.
  return batch, [step.train_op, step.weights_l2.op]


def _floor(config, data):
  """Ops of two forwards and one backward, and nothing else."""
  # pylint: disable=g-import-not-at-top
  from mentormix import runtime
  from mentormix import students
  tf = runtime.tf
  batch_size, num_classes = config.batch_size, data.dataset.num_classes
  images = tf.Variable(tf.random.normal(
      [batch_size] + 2 * [data.dataset.image_size] + [3]), trainable=False)
  labels = tf.Variable(tf.one_hot(tf.range(batch_size) % num_classes,
                                  num_classes), trainable=False)
  losses = []
  for reuse in (False, True):
    with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
      logits = students.get(config.studentnet)(
          images, num_classes, True, update_statistics=False,
          dtype=runtime.arithmetic(config.precision))
    losses.append(tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(
        labels=tf.stop_gradient(labels), logits=logits)))
    # The second pass must not be taken for a copy of the first.
    images = images + 1e-6 * tf.stop_gradient(losses[0])
  weights = tf.trainable_variables()
  return [_keep(gradient, weight.shape) for gradient, weight in zip(
      tf.gradients(losses[1], weights), weights)]


def _keep(tensor, shape):
  """An op that moves `tensor` into a variable, which takes no copy.

  What nobody uses, the graph optimizer or XLA would leave out.
  """
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  kept = tf.Variable(tf.zeros(shape, tensor.dtype), trainable=False)
  return kept.assign(tensor).op


def _parts(config, data):
  """Ops of parts of the step, each on constants."""
  # pylint: disable=g-import-not-at-top
  from mentormix import mentormix_loss
  from mentormix import mentornet
  from mentormix import sampling
  from mentormix import students
  from mentormix import training
  from mentormix.runtime import tf
  from mentormix.students import resnet
  constant = lambda x: tf.identity(tf.Variable(x, trainable=False))
  size, num_classes = config.batch_size, data.dataset.num_classes
  images = constant(tf.random.normal(
      [size] + 2 * [data.dataset.image_size] + [3]))
  labels = constant(tf.one_hot(tf.range(size) % num_classes, num_classes))
  parts = collections.OrderedDict()

  loss = constant(tf.random.uniform([size], maxval=5.0))
  mentor = mentornet.Mentor(data.network, tf.constant(50),
                            config.loss_p_percentile)
  v = mentor(loss)
  moved = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  parts['mentor'] = [_keep(v, [size])] + [x.op for x in moved]

  v = constant(tf.random.uniform([size]))
  step = tf.train.get_or_create_global_step()
  mixed = mentormix_loss._mix_with_partners(
      images, labels, v, config.mixup_alpha,
      sampling.Sampler(config.seed, tf.identity(step), 0))
  parts['mixing'] = [_keep(x, whole.shape)
                     for x, whole in zip(mixed, (images, labels))]

  tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS).clear()
  students.get(config.studentnet)(images, num_classes, True,
                                  update_statistics=False)
  weights = tf.trainable_variables()
  gradients = [constant(1e-3 * tf.random.normal(w.shape)) for w in weights]

  @tf.custom_gradient
  def constant_gradients(*unused_weights):
    return tf.constant(0.0), lambda unused: gradients

  optimizer = training._optimizer(0.01, tf.identity(step), config.precision)
  update = training._update(constant_gradients(*weights), optimizer, step)
  with tf.control_dependencies([update]):
    parts['update'] = [update, training._weights_l2().op]
  move = {'moving_mean': resnet._move_debiased,
          'moving_variance': resnet._move}
  parts['statistics'] = [
      move[name](variable, constant(tf.ones(variable.shape))).op
      for variable in tf.global_variables()
      for name in move if variable.op.name.endswith('/' + name)]
  return parts


def _memory(config, unused_job):
  """Trains some steps and does nothing else."""
  from mentormix import input_pipeline  # pylint: disable=g-import-not-at-top
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  with tf.Graph().as_default():
    _, ops = _build_step(config, _data(config), input_pipeline,
                         config.num_preprocessing_threads)
    session = _session(config)
  for _ in range(_MEMORY_STEPS):
    session.run(ops)
  unit = 1 if sys.platform == 'darwin' else 1024  # Bytes there, KiB on Linux.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  return {}, dict(peak_memory_mib=peak / 2.0 ** 20)


_KINDS = {'check': _check, 'input': _input_rows, 'memory': _memory,
          'step': _step_rows}


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
