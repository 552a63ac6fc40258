"""Breaks running commands in the ways that happen, and checks what is left.

    python code/inject_faults.py --output_dir=runs/faults --count=20
    python code/inject_faults.py --output_dir=runs/faults --faults=kill --count=200

For developers. Trains and evaluates by the real commands on a few digits, and
injects --count of each of these faults:

  kill           SIGKILL of trainer or evaluator at a random moment of a run,
                 start and checkpoint writes included
  damage         a checkpoint, or the list of them, truncated, flipped, missing
  disk_full      a disk that runs full at a checkpoint, a summary, a result
  read_only      a disk that cannot be written any more
  second_writer  a second trainer or evaluator on the same directories
  signals        SIGTERM, SIGINT, SIGHUP, SIGHUP under nohup, SIGUSR1

After each the same command is started again. It has to go on from the newest
checkpoint that can be read, and end with the same bits as a run that nothing
happened to; no saved step and no row of results.csv may be gone; a command that
cannot go on says so in one line. disk_full and read_only need the right to
mount, by user namespaces or by being root, and are left out without it.

Prints a line per injection; writes faults.json and faults.md, a row per fault
and TensorFlow version, to --output_dir, with the rows of earlier calls that
this one did not measure again. A run that broke a promise is kept beside them.

Exit codes: 0 every promise was kept, 1 one was broken, 2 bad input.
"""
import collections
import concurrent.futures
import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
import random as random_lib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from absl import flags

from mentormix import command
from mentormix import files
from mentormix import noise
from mentormix import results
from mentormix.command import log
from mentormix.command import RunError
from mentormix.command import UserError

CODE = os.path.dirname(os.path.abspath(__file__))
_TRAIN, _EVAL = 'cifar_train_mentormix.py', 'cifar_eval.py'

_LIMIT = 60  # Seconds in which a command that cannot go on has to end, and
_STARTS = 5  # so many times what it took to start: the machine may be busy.
_PATIENCE = 600  # Seconds to wait for what no promise bounds.
_POLL = 0.02
_START = 6.0  # Seconds: of those that are killed during their start.
_LIVES = (2.0, 4.0, 12.0)  # And of the others, once they have begun.
_KILLED_EARLY = 0.2  # Share of the former.
_PAUSE = 0.3  # Seconds from a save to the next SIGUSR1: about as long as it.
_DISK = 64 << 20  # Bytes of the disk that runs full.
_RUNTIME_THREADS = ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS',
                    'TF_NUM_INTEROP_THREADS')  # One each: the order of sums.
_INSIDE = 'MENTORMIX_MOUNTS'  # Set where this process has mounts of its own.
_REMAINS = re.compile(r'.*(\.tempstate|_temp_|\.tmp)')
_MAX_KEPT = 10  # Runs that broke a promise.
_RESULT = ('faults.json', 'faults.md')

_READY = {_TRAIN: r'step \d+/\d+ ', _EVAL: r'evaluating|waiting'}
_RESUME = r'from step (\d+)|a new run'
_SAVED = r'SIGUSR1: checkpoint of step (\d+) saved'


# Commands.


class Process(object):
  """A command in a process of its own; its output goes to two files.

  Attributes:
    pid: of the process.
    started: seconds since 1970.
    limit: seconds that it may take to end.
  """

  def __init__(self, args, path):
    """Starts it.

    Args:
      args: the command line.
      path: of the files, without .out and .err.
    """
    environment = dict(os.environ, **{name: '1' for name in _RUNTIME_THREADS})
    self._path = path
    self.started = time.time()
    self.limit = _PATIENCE
    with open(path + '.out', 'w') as out, open(path + '.err', 'w') as err:
      self._process = subprocess.Popen(
          args, env=environment, stdout=out, stderr=err,
          preexec_fn=_default_signals)
    self.pid = self._process.pid

  @property
  def out(self):
    """What it has printed so far."""
    return _text(self._path + '.out')

  @property
  def err(self):
    """What it has written to stderr so far."""
    return _text(self._path + '.err')

  def code(self):
    """Its exit code, None while it runs."""
    return self._process.poll()

  def find(self, pattern):
    """The first match in what it has printed, or None."""
    return re.search(pattern, self.out)

  def wait_for(self, pattern, seconds=_PATIENCE):
    """As `find`, once there is a match; None if it ends or `seconds` pass."""
    end = time.time() + seconds
    while time.time() < end:
      ended = self.code() is not None
      found = self.find(pattern)
      if found or ended:
        return found
      time.sleep(_POLL)
    return None

  def send(self, number):
    """Sends a signal, if it is there still."""
    if self.code() is None:
      self._process.send_signal(number)

  def wait(self, seconds):
    """Its exit code once it has ended; None if it is killed after `seconds`."""
    try:
      return self._process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
      self.kill()
      return None

  def kill(self):
    """Ends it at once."""
    if self.code() is None:
      self._process.kill()
    self._process.wait()


def _default_signals():
  """This script may run in the background, where some are ignored."""
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


def _text(path):
  with open(path, errors='replace') as f:
    return f.read()


# Checkpoints: what follows runs in a process that has loaded TensorFlow.


def _version():
  from mentormix import runtime  # pylint: disable=g-import-not-at-top
  return runtime.VERSION


def _tensors(directory, step):
  """Name -> value of all variables in a checkpoint."""
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  reader = tf.train.load_checkpoint(_prefix(directory, step))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def _inspect(directory):
  """The checkpoints in a directory.

  Returns:
    (listed, readable): the step of the newest one that the file `checkpoint`
    names, None without such a file, -1 if it names none; and the set of steps
    of all that are there with every value.
  """
  from mentormix.runtime import tf  # pylint: disable=g-import-not-at-top
  readable = set()
  for step in _steps(directory, '.index'):
    try:
      if _tensors(directory, step)['global_step'] == step:
        readable.add(step)
    except (tf.errors.OpError, ValueError, LookupError, RuntimeError):
      pass
  try:
    state = tf.train.get_checkpoint_state(directory)
  except (tf.errors.OpError, ValueError):
    return -1, readable
  if not state:
    return None, readable
  found = re.search(r'-(\d+)$', state.model_checkpoint_path)
  return int(found.group(1)) if found else -1, readable


def _difference(directory, other, step):
  """The largest difference between two checkpoints of a step, and where.

  Returns:
    (difference, name of the variable); (inf, what) if they do not have the same
    variables.
  """
  import numpy as np  # pylint: disable=g-import-not-at-top
  one, two = _tensors(directory, step), _tensors(other, step)
  for name in sorted(set(one) ^ set(two)):
    return float('inf'), '%s is in one only' % name
  return max((float(np.abs(one[name].astype(np.float64) - two[name]).max()),
              name) for name in one)


def _steps(directory, ending):
  """Steps of the checkpoints that have a file of this ending, sorted."""
  found = (re.match(r'model\.ckpt-(\d+)' + re.escape(ending), name)
           for name in os.listdir(directory))
  return sorted({int(match.group(1)) for match in found if match})


def _prefix(directory, step):
  return os.path.join(directory, 'model.ckpt-%d' % step)


def _newest(readable):
  """The step that training has to go on from; 0 for a new run."""
  return max(readable) if readable else 0


# What is broken, and what is found.


class Tally(object):
  """The injections of one fault, and the promises that were broken.

  Attributes:
    fault: its name.
    injected: how many so far.
    violations: a line each.
    kept: whether no promise was broken since `kept` was last set.
  """

  def __init__(self, fault, version):
    self.fault, self._version = fault, version
    self._lost = set()
    self._differences = []
    self.injected = 0
    self.violations = []
    self.kept = True
    self.note = ''

  def inject(self, what):
    """Counts an injection."""
    self.injected += 1
    log('%s %d: %s' % (self.fault, self.injected, what))

  def expect(self, condition, message, lost=False):
    """Notes a violation unless `condition` holds.

    Args:
      condition: a promise.
      message: what is the case if it is broken.
      lost: whether something that had been saved is then gone.

    Returns:
      Whether it holds.
    """
    if not condition:
      self.kept = False
      line = 'after injection %d: %s' % (self.injected, message)
      self.violations.append(line)
      if lost:
        self._lost.add(self.injected)
      log('  BROKEN %s' % line)
    return bool(condition)

  def compare(self, difference, name):
    """Notes how far the end of a run is from that of one without faults."""
    self._differences.append(difference)
    self.expect(not difference, 'the run ends with other numbers: %s by %g'
                % (name, difference), lost=True)

  def row(self):
    """The row of faults.json."""
    return collections.OrderedDict((
        ('fault', self.fault), ('runtime', self._version),
        ('injected', self.injected), ('lost', len(self._lost)),
        ('runs_compared', len(self._differences)),
        ('largest_difference', max(self._differences, default=None)),
        ('violations', self.violations), ('note', self.note)))


class Bench(object):
  """A run that faults are injected into, and what it has to end like.

  Attributes:
    random: a random.Random.
    tally: the `Tally` of the fault at hand.
    steps: of a run.
    train_dir, eval_dir: of the run.
    csv: path of its results.csv.
    version: of TensorFlow.
  """

  def __init__(self, output_dir, directory, steps, seed, checker):
    """Creates it; `prepare` does the work.

    Args:
      output_dir: where runs that broke a promise are kept.
      directory: for everything else.
      steps: of a run.
      seed: of the random choices.
      checker: a concurrent.futures.Executor with TensorFlow.
    """
    self.random = random_lib.Random(seed)
    self.steps = steps
    self.tally = None
    self._kept = 0
    self._output_dir, self._directory = output_dir, directory
    self._checker = checker
    self._running = []
    self._count = 0  # Of commands.
    self.version = None
    self.run_dir = os.path.join(directory, 'run')
    self.train_dir = os.path.join(self.run_dir, 'train')
    self.eval_dir = os.path.join(self.run_dir, 'eval')
    self.csv = os.path.join(self.eval_dir, results.FILE)
    self._reference = self._base = None
    self._results = {}  # Step -> its row, of `_base`.
    self._data = os.path.join(directory, 'data')
    os.mkdir(os.path.join(directory, 'logs'))

  def prepare(self):
    """Makes the data, and loads TensorFlow."""
    self.version = self._checker.submit(_version).result()
    self._must(self._start('prepare_data.py', dict(
        dataset_name='digits', num_train=400, noise_levels=0.4,
        output_dir=self._data)))

  def _must(self, process):
    """Waits for a command that nothing is done to."""
    code = process.wait(_PATIENCE)
    if code != 0:
      raise RunError('what nothing was done to failed with exit code %s: %s'
                     % (code, process.err))

  def _start(self, script, settings, before=()):
    self._count += 1
    args = list(before) + [sys.executable, os.path.join(CODE, script)]
    args += ['--%s=%s' % item for item in sorted(settings.items())]
    process = Process(args, os.path.join(
        self._directory, 'logs', '%04d-%s' % (self._count, script[:-3])))
    self._running = [p for p in self._running if p.code() is None] + [process]
    return process

  def start(self, script, before=(), **settings):
    """Starts trainer or evaluator.

    Args:
      script: `_TRAIN` or `_EVAL`.
      before: words before the command line, as nohup.
      **settings: flags that differ from those of every other time.
    """
    if script == _TRAIN:
      values = dict(
          dataset_name='digits', data_dir=os.path.join(self._data, '0.4'),
          train_log_dir=self.train_dir, studentnet='resnet8_thin', batch_size=4,
          trained_mentornet_dir=os.path.join(
              os.path.dirname(CODE), 'mentornet_models', 'mentornet_pd'),
          max_number_of_steps=self.steps, num_preprocessing_threads=1,
          device_id='', save_interval_secs=1, save_summaries_secs=1)
    else:
      values = dict(
          data_dir=os.path.join(self._data, 'val'), eval_dir=self.eval_dir,
          checkpoint_dir=self.train_dir, batch_size=100, eval_interval_secs=1,
          device_id='')
    return self._start(script, dict(values, **settings), before)

  def begin(self, script, before=(), **settings):
    """As `start`; returns once it trains or evaluates."""
    process = self.start(script, before, **settings)
    process.wait_for(_READY[script])
    process.limit = _LIMIT + _STARTS * (time.time() - process.started)
    return process

  def stop(self):
    """Ends all that still runs."""
    for process in self._running:
      process.kill()

  def inspect(self):
    """`_inspect` of the run; nothing where it has no directory yet."""
    if not os.path.isdir(self.train_dir):
      return None, set()
    return self._checker.submit(_inspect, self.train_dir).result()

  def rows(self):
    """The rows of results.csv; a file that cannot be read breaks a promise."""
    try:
      return results.read(self.csv)
    except UserError as error:
      self.tally.expect(False, str(error), lost=True)
      return []

  def clear(self):
    """Makes the run's directory empty; keeps a run that broke a promise."""
    if self.tally and not self.tally.kept and self._kept < _MAX_KEPT:
      self._kept += 1
      kept = os.path.join(self._output_dir, 'broken-%s-%d' % (
          self.tally.fault, self.tally.injected))
      shutil.rmtree(kept, ignore_errors=True)
      shutil.copytree(self.run_dir, os.path.join(kept, 'run'))
      shutil.copytree(os.path.join(self._directory, 'logs'),
                      os.path.join(kept, 'logs'))
      log('  kept in %s' % kept)
    if self.tally:
      self.tally.kept = True
    shutil.rmtree(self.run_dir, ignore_errors=True)
    os.makedirs(self.run_dir, exist_ok=True)

  @property
  def reference(self):
    """Directory of a run that nothing happened to."""
    if not self._reference:
      self._reference = os.path.join(self._directory, 'reference')
      self._must(self.start(_TRAIN, train_log_dir=self._reference))
    return self._reference

  def restore(self):
    """Makes the run one that was stopped half way, with five checkpoints.

    All but the last two have a row in results.csv.
    """
    if not self._base:
      self.clear()
      base = os.path.join(self._directory, 'base')
      process = self.begin(_TRAIN)
      while True:
        process.send(signal.SIGUSR1)
        time.sleep(_PAUSE)
        saved = [int(step) for step in
                 re.findall(_SAVED, process.out)]
        if process.code() is not None or len(saved) > 4 and (
            saved[-1] >= self.steps // 4):
          break
      process.send(signal.SIGTERM)
      if process.wait(_PATIENCE) != 128 + signal.SIGTERM:
        raise RunError('a run of %d steps is too short to stop it half way; '
                       'raise --steps' % self.steps)
      self._must(self.start(_EVAL, once=True))
      self._results = {row.step: row for row in self.rows()}
      _write_rows(self.csv, self.rows()[:-2])
      shutil.copytree(self.run_dir, base)
      self._base = base
    self.clear()
    for name in os.listdir(self._base):
      shutil.copytree(os.path.join(self._base, name),
                      os.path.join(self.run_dir, name))

  # Promises.

  def check_line(self, process, code, expected, *words):
    """That a command ended with one line.

    Args:
      process: that has ended.
      code: its exit code, None if it had to be killed.
      expected: the exit codes that are right.
      *words: what the line has to hold.
    """
    error = process.err
    if not self.tally.expect(code is not None, 'it hangs'):
      return
    self.tally.expect(code in expected, 'exit code %d: %s' % (code, error))
    self.tally.expect('Traceback' not in error and error.count('\n') == 1,
                      'not one line: %s' % error)
    for word in words:
      self.tally.expect(word in error, '%r is not in: %s' % (word, error))

  def check_resume(self, process, expected):
    """That training goes on from a step, 0 for a new run; whether it does."""
    found = process.wait_for(_RESUME)
    if not found:
      code = process.wait(process.limit)
      return self.tally.expect(
          False, 'training does not start: exit code %s, %s'
          % (code, process.err), lost=True)
    step = int(found.group(1) or 0)
    return self.tally.expect(
        step == expected, 'training goes on from step %d, not from %d'
        % (step, expected), lost=step < expected)

  def check_saved(self, before):
    """That no checkpoint is gone; the step that training has to go on from.

    Args:
      before: step of the newest one that was listed, None for none.
    """
    listed, readable = self.inspect()
    if listed is not None:
      self.tally.expect(listed in readable,
                        'step %d is listed but cannot be read' % listed)
    self.tally.expect(_newest(readable) >= (before or 0),
                      'step %s was saved, step %d is left'
                      % (before, _newest(readable)), lost=True)
    return _newest(readable)

  def check_rows(self, before):
    """That results.csv has the rows of before, and each step once."""
    rows = self.rows()
    steps = [row.step for row in rows]
    self.tally.expect(len(set(steps)) == len(steps),
                      'a step has two rows: %s' % steps)
    for row in rows:
      right = self._results.get(row.step, row)
      self.tally.expect(right[:-1] == row[:-1], 'a wrong result: %s, not %s'
                        % (row, right))
    self.tally.expect(set(before) <= set(rows), 'rows are gone: %s' % sorted(
        row.step for row in set(before) - set(rows)), lost=True)
    return rows

  def check_end(self, process):
    """That training ends, and as if nothing had happened."""
    code = process.wait(_PATIENCE)
    if self.tally.expect(code == 0, 'training does not end: exit code %s, %s'
                         % (code, process.err)):
      self.check_final()

  def check_final(self):
    """That the last checkpoint is as if nothing had happened."""
    _, readable = self.inspect()
    if not self.tally.expect(self.steps in readable,
                             'the last checkpoint cannot be read', lost=True):
      return
    self.tally.compare(*self._checker.submit(
        _difference, self.train_dir, self.reference, self.steps).result())
    remains = sorted(filter(_REMAINS.match, os.listdir(self.train_dir)))
    self.tally.expect(not remains, 'left over: %s' % ', '.join(remains))

  def finish(self, expected):
    """Starts training again, and checks that it goes on and how it ends."""
    process = self.start(_TRAIN)
    if self.check_resume(process, expected):
      self.check_end(process)
    process.kill()


def _write_rows(path, rows):
  with open(path, 'w') as f:
    writer = csv.writer(f, lineterminator='\n')
    writer.writerow(results.Result._fields)
    writer.writerows(rows)


# kill.


class _Life(object):
  """A command from its start to its end, and when that is to come."""

  def __init__(self, bench, script, expected):
    self.script = script
    self.process = bench.start(script)
    self.expected = expected  # Step to go on from; None once that is checked.
    self.ready = None  # Since when.
    self._early = bench.random.random() < _KILLED_EARLY
    self._seconds = bench.random.uniform(
        0, _START if self._early else bench.random.choice(_LIVES))
    self._saved, self._since = -1, 0  # Saves so far; since when.

  def look(self, save):
    """Notes whether it has begun; asks it to save, now and then, if `save`."""
    if not self.ready and self.process.find(_READY[self.script]):
      self.ready = time.time()
    if save and self.script == _TRAIN and self.ready:
      saved = self.process.out.count('SIGUSR1')
      if saved != self._saved:
        self._saved, self._since = saved, time.time()
      elif self._since and time.time() - self._since > _PAUSE:
        self.process.send(signal.SIGUSR1)
        self._since = 0  # Until it has been done.

  def is_over(self):
    """Whether it is time to kill it."""
    since = self.process.started if self._early else self.ready
    return bool(since) and time.time() - since > self._seconds

  def __str__(self):
    return '%s %.2f s after %s' % (self.script[:-3], self._seconds,
                                   'its start' if self._early else
                                   'it has begun')


def kill(bench, count):
  """Runs of trainer and evaluator together, killed again and again."""
  tally = bench.tally
  bench.reference  # Made before, so that both cores are free.
  while tally.injected < count:
    before = tally.injected
    bench.clear()
    _kill_in_run(bench, count)
    if tally.injected == before and tally.violations:
      break


def _kill_in_run(bench, count):
  """One run; ends when both commands have, or a promise is broken."""
  tally = bench.tally
  lives = {script: _Life(bench, script, 0) for script in (_TRAIN, _EVAL)}
  deadline = time.time() + _PATIENCE
  while lives and tally.kept:
    time.sleep(_POLL)
    if not tally.expect(time.time() < deadline, 'nothing happens any more: %s'
                        % ', '.join(sorted(lives))):
      break
    for script in sorted(lives):
      life = lives[script]
      life.look(tally.injected < count)
      if life.expected is not None and life.process.find(_RESUME):
        if script == _TRAIN:
          bench.check_resume(life.process, life.expected)
        life.expected = None
      if life.process.code() is not None:
        tally.expect(life.process.code() == 0, '%s ends by itself: exit code '
                     '%s, %s' % (script, life.process.code(), life.process.err))
        del lives[script]
      elif tally.injected < count and life.is_over():
        saved, rows = bench.inspect()[0], bench.rows()
        life.process.kill()
        tally.inject('%s, at step %s' % (life, saved))
        expected = bench.check_saved(saved) if script == _TRAIN else None
        bench.check_rows(rows)
        lives[script] = _Life(bench, script, expected)
        deadline = time.time() + _PATIENCE
  for life in lives.values():
    life.process.kill()
  if tally.kept:
    bench.check_final()
    rows = bench.check_rows([])
    tally.expect(rows and rows[-1].step == bench.steps,
                 'results.csv does not end with step %d' % bench.steps)


# damage.


def _cut(random, path):
  os.truncate(path, random.randrange(os.path.getsize(path)))


def _flip(random, path):
  with open(path, 'r+b') as f:
    place = random.randrange(os.path.getsize(path))
    f.seek(place)
    byte = f.read(1)[0]
    f.seek(place)
    f.write(bytes([byte ^ 1 << random.randrange(8)]))


def _remove(random, path):
  del random
  os.remove(path)


def _write(text):
  def write(random, path):
    del random
    with open(path, 'w') as f:
      f.write(text)
  return write


_DATA, _INDEX = '.data-00000-of-00001', '.index'
_STATE = 'checkpoint'
_DAMAGES = collections.OrderedDict((
    ('data cut', (_DATA, _cut)),
    ('state missing', (_STATE, _remove)),
    ('index flipped', (_INDEX, _flip)),
    ('data missing', (_DATA, _remove)),
    ('state garbage', (_STATE, _write('\0\xff{model'))),
    ('data flipped', (_DATA, _flip)),
    ('state of another', (_STATE, _write(
        'model_checkpoint_path: "model.ckpt-999999"\n'
        'all_model_checkpoint_paths: "model.ckpt-999999"\n'))),
    ('index missing', (_INDEX, _remove)),
    ('every index cut', (_INDEX, _cut)),
    ('state empty', (_STATE, _write(''))),
    ('index cut', (_INDEX, _cut)),
))


def damage(bench, count):
  """A run that was stopped half way, and then damaged."""
  for number in range(count):
    bench.restore()
    kind = list(_DAMAGES)[number % len(_DAMAGES)]
    _damage_run(bench, kind)


def _damage_run(bench, kind):
  """One kind of damage."""
  tally = bench.tally
  ending, change = _DAMAGES[kind]
  steps = _steps(bench.train_dir, _INDEX)
  hit = []
  if ending == _STATE:
    change(bench.random, os.path.join(bench.train_dir, _STATE))
  else:
    # The newest one, or the newest two.
    hit = steps if kind.startswith('every') else steps[
        -bench.random.choice([1, 1, 2]):]
    for step in hit:
      change(bench.random, _prefix(bench.train_dir, step) + ending)
  tally.inject('%s%s' % (kind, ' of %s' % hit if hit else ''))
  _, readable = bench.inspect()
  damaged = set(hit) - readable  # A bit may mean nothing.
  before, rows = _contents(bench.train_dir), bench.rows()

  process = bench.start(_EVAL, once=True)
  code = process.wait(_PATIENCE)
  evaluated = {row.step for row in bench.check_rows(rows)}
  # What it needs may be undamaged; and without an index there is no checkpoint.
  if set(_steps(bench.train_dir, _INDEX)) - evaluated:
    bench.check_line(process, code, (1, 2), bench.train_dir)
  else:
    tally.expect(code == 0, 'evaluation fails: %s' % process.err)
  tally.expect(readable <= evaluated, 'not evaluated: %s'
               % sorted(readable - evaluated))
  tally.expect(_contents(bench.train_dir) == before,
               'evaluation changed the checkpoints')

  if readable:
    process = bench.start(_TRAIN)
    if bench.check_resume(process, _newest(readable)):
      said = process.out[:process.find(_RESUME).start()]
      for step in damaged:
        tally.expect(os.path.basename(_prefix('', step)) in said,
                     'nothing is said of step %d' % step)
      there = set(_contents(bench.train_dir).values())
      for name, content in before.items():
        if any(name.startswith('model.ckpt-%d.' % step) for step in damaged):
          tally.expect(content in there, '%s is deleted' % name, lost=True)
      bench.check_end(process)
    process.kill()
  else:
    process = bench.start(_TRAIN)
    bench.check_line(process, process.wait(_PATIENCE), (2,), bench.train_dir)
    tally.expect(_contents(bench.train_dir) == before,
                 'training that cannot start changed something')


def _contents(directory):
  """Name -> digest of all files but the lock."""
  found = {}
  for name in os.listdir(directory):
    path = os.path.join(directory, name)
    if os.path.isfile(path) and name != files.LOCK_FILE:
      with open(path, 'rb') as f:
        found[name] = hashlib.md5(f.read()).hexdigest()
  return found


# disk_full, read_only.


def enter_mounts():
  """Goes on in a namespace with mounts of its own; whether that can be.

  They are gone with the process, however it ends.
  """
  if os.environ.get(_INSIDE):
    return True
  with tempfile.TemporaryDirectory() as directory:
    for kind in ('-m', '-Urm'):
      try:
        code = subprocess.call(
            ['unshare', kind, 'mount', '-t', 'tmpfs', 'tmpfs', directory],
            stderr=subprocess.DEVNULL)
      except OSError:  # No unshare here.
        return False
      if not code:
        break
    else:
      return False
  os.execvpe('unshare', ['unshare', kind, sys.executable] + sys.argv,
             dict(os.environ, **{_INSIDE: '1'}))


def _mount(*args):
  subprocess.check_call(['mount'] + list(args))


class _FullDisk(object):
  """A small disk under the run, that runs full."""

  def __init__(self, bench):
    self._bench = bench
    self._filler = os.path.join(bench.run_dir, 'filler')

  def mount(self):
    """Puts it in place, empty."""
    _mount('-t', 'tmpfs', '-o', 'size=%d' % _DISK, 'tmpfs',
           self._bench.run_dir)

  def strike(self, kind):
    """Fills it, but for a random part of what is to be written next."""
    train_dir, random = self._bench.train_dir, self._bench.random
    data = os.path.getsize(_prefix(
        train_dir, _steps(train_dir, _DATA)[-1]) + _DATA)
    rest = {
        # Anywhere in it, or between the large files: index and list.
        'checkpoint': random.choice([
            random.randrange(data), data + random.randrange(1 << 14)]),
        'start': random.randrange(1 << random.choice([1, 14, 20])),
        'summary': random.randrange(1 << 14),
        'results': random.choice([0, random.randrange(1 << 14)])}[kind]
    with open(self._filler, 'wb') as f:
      while True:
        status = os.statvfs(self._bench.run_dir)
        size = (os.fstat(f.fileno()).st_size
                + status.f_bavail * status.f_frsize - rest)
        try:
          if size > 0:
            os.posix_fallocate(f.fileno(), 0, size)
          break
        except OSError:  # Somebody else was faster.
          pass
    return '%d bytes left' % rest

  def mend(self):
    """Makes room."""
    os.remove(self._filler)

  def unmount(self):
    """Takes it away."""
    subprocess.check_call(['umount', self._bench.run_dir])


class _ReadOnlyDisk(object):
  """The run's directory, under a read-only view of itself.

  What a command has open goes on being written: no disk with such files can be
  made read-only by force.
  """

  def __init__(self, bench):
    self._directory = bench.run_dir
    self._bound = False

  def mount(self):
    """Nothing is needed before."""

  def strike(self, kind):
    """Makes it read-only."""
    del kind
    _mount('--bind', self._directory, self._directory)
    self._bound = True
    _mount('-o', 'remount,bind,ro', self._directory)
    return 'read-only'

  def mend(self):
    """Makes it writable."""
    if self._bound:
      subprocess.check_call(['umount', self._directory])
      self._bound = False

  unmount = mend


_WRITES = ('checkpoint', 'results', 'start', 'summary')


def disk_full(bench, count):
  """A disk that runs full at different writes."""
  _fail_writes(bench, count, _FullDisk(bench))


def read_only(bench, count):
  """A disk that turns read-only at different moments."""
  _fail_writes(bench, count, _ReadOnlyDisk(bench))


def _fail_writes(bench, count, disk):
  bench.restore()
  for number in range(2 * count):
    if bench.tally.injected == count:
      break
    bench.clear()
    disk.mount()
    try:
      bench.restore()
      _fail_write(bench, _WRITES[number % len(_WRITES)], disk)
    finally:
      bench.stop()
      bench.clear()
      disk.unmount()


def _fail_write(bench, kind, disk):
  """One failure of the disk; none if the command is over before it."""
  tally = bench.tally
  if kind == 'results':
    _lengthen_rows(bench)
  rows = bench.rows()
  saved, _ = bench.inspect()
  script = _EVAL if kind == 'results' else _TRAIN
  settings = {_EVAL: dict(once=True), _TRAIN: dict(
      # Checkpoints are then not in the way of the summary.
      save_interval_secs=_PATIENCE if kind == 'summary' else 1)}[script]
  if kind == 'start':
    what = disk.strike(kind)
    process = bench.start(script, **settings)
  else:
    process = bench.begin(script, **settings)
    saved, _ = bench.inspect()
    what = disk.strike(kind)
  end = time.time() + process.limit
  while process.code() is None and time.time() < end:
    if kind == 'checkpoint' and process.find(_READY[script]):
      process.send(signal.SIGUSR1)
    time.sleep(_PAUSE)
  code = process.wait(0)
  if code == 0:
    return
  tally.inject('%s, %s' % (kind, what))
  bench.check_line(process, code, (1, 2) if kind == 'start' else (1,),
                   bench.run_dir)
  expected = bench.check_saved(saved)
  rows = bench.check_rows(rows)
  disk.mend()
  if kind == 'results':
    process = bench.start(_EVAL, once=True)
    code = process.wait(_PATIENCE)
    tally.expect(code == 0, 'evaluation does not go on: exit code %s, %s'
                 % (code, process.err))
    steps = {row.step for row in bench.check_rows(rows)}
    missing = set(_steps(bench.train_dir, _INDEX)) - steps
    tally.expect(not missing, 'steps without a row: %s' % sorted(missing))
  else:
    bench.finish(expected)


def _lengthen_rows(bench):
  """Rows of steps of before, until a few bytes are left of a page of the disk.

  A disk is given out in pages: the next row then does not fit in.
  """
  rows = bench.rows()
  first = min(row.step for row in rows) if rows else bench.steps
  more = []
  for step in range(first):
    more.append(results.Result(step, 0.1, 0.5, 2.3, 400,
                               float(int(time.time()))))
    _write_rows(bench.csv, more + rows)
    left = -os.path.getsize(bench.csv) % 4096
    if left < 100:
      break


# second_writer.


def second_writer(bench, count):
  """A second process on directories that one holds already."""
  tally = bench.tally
  for number in range(count):
    bench.restore()
    script = (_TRAIN, _EVAL)[number % 2]
    holder = bench.begin(script)
    rows = bench.rows()
    tally.inject('a second %s' % script[:-3])
    holder.send(signal.SIGSTOP)  # It may not end meanwhile.
    second = bench.start(script)
    bench.check_line(second, second.wait(holder.limit), (2,),
                     'process %d ' % holder.pid)
    holder.send(signal.SIGCONT)
    if script == _TRAIN:
      holder.send(signal.SIGUSR1)
      tally.expect(holder.wait_for(_SAVED, holder.limit),
                   'the first one does not go on: %s' % holder.err)
    else:
      tally.expect(holder.code() is None, 'the first one ended: %s'
                   % holder.err)
    holder.kill()
    expected = bench.check_saved(None)
    bench.check_rows(rows)
    if script == _TRAIN:
      bench.finish(expected)
    else:
      process = bench.start(script, once=True)
      code = process.wait(_PATIENCE)
      tally.expect(code == 0, 'no other takes over: exit code %s, %s'
                   % (code, process.err))
      bench.check_rows(rows)


# signals.


_SIGNALS = (('SIGTERM', ()), ('SIGUSR1', ()), ('SIGHUP', ('nohup',)),
            ('SIGINT', ()), ('SIGHUP', ()))


def signals(bench, count):
  """Runs that are stopped by a signal, or asked to save."""
  tally = bench.tally
  expected = None
  number = 0
  while number < count:
    if expected is None or not tally.kept or expected > bench.steps * 3 // 4:
      if expected:
        bench.finish(expected)
      bench.restore()
      expected = _newest(bench.inspect()[1])
    expected = _send(bench, expected, *_SIGNALS[number % len(_SIGNALS)])
    number += 1
  bench.finish(expected)
  bench.clear()


def _send(bench, expected, name, before):
  """Sends a signal to a run that goes on; the step that is saved then."""
  tally = bench.tally
  number = getattr(signal, name)
  process = bench.start(_TRAIN, before)
  bench.check_resume(process, expected)
  process.wait_for(_READY[_TRAIN])
  time.sleep(bench.random.uniform(0, 1))
  process.send(number)
  tally.inject(' '.join(before + (name,)))
  if before:  # It goes on, and can still be asked to save.
    number = signal.SIGUSR1
    process.send(number)
  if number == signal.SIGUSR1:
    found = process.wait_for(_SAVED, process.limit)
    tally.expect(process.code() is None, 'training ended: %s' % process.err)
    process.kill()
  else:
    code = process.wait(process.limit)
    tally.expect(code == 128 + number, 'exit code %s: %s' % (code, process.err))
    found = process.find(r'stopped by %s at step (\d+)' % name)
  step = bench.check_saved(expected)
  if tally.expect(found, 'nothing is said of a checkpoint'):
    said = int(found.group(1))
    # After SIGUSR1 training goes on, and may have saved once more.
    tally.expect(step == said or number == signal.SIGUSR1 and step > said,
                 'said to be saved: step %d, newest: %d' % (said, step),
                 lost=True)
  return step


FAULTS = collections.OrderedDict((
    ('kill', kill), ('damage', damage), ('disk_full', disk_full),
    ('read_only', read_only), ('second_writer', second_writer),
    ('signals', signals)))
_WITH_MOUNTS = ('disk_full', 'read_only')


# The report.


def write_report(directory, rows):
  """Writes faults.json and faults.md.

  Args:
    directory: where to.
    rows: as of `Tally.row`.
  """
  with files.replaced(os.path.join(directory, _RESULT[0])) as f:
    json.dump({'rows': rows}, f, indent=2)
    f.write('\n')
  lines = ['| fault | runtime | injected | lost | violations |',
           '|---|---|---|---|---|']
  for row in rows:
    lines.append('| %s | %s | %s | %d | %d |' % (
        row['fault'], row['runtime'], row['note'] or row['injected'],
        row['lost'], len(row['violations'])))
  for row in rows:
    if row['violations']:
      lines += ['', '%s, %s:' % (row['fault'], row['runtime']), '']
      lines += ['- %s' % ' '.join(line.split()) for line in row['violations']]
  with files.replaced(os.path.join(directory, _RESULT[1])) as f:
    f.write('\n'.join(lines) + '\n')


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_list('faults', list(FAULTS), 'Which.')
  flags.DEFINE_integer('count', 20, 'Injections of each.', lower_bound=1)
  flags.DEFINE_integer('steps', 1000, 'Of a run.', lower_bound=100)
  flags.DEFINE_integer('seed', 0, 'Of the random choices.', lower_bound=0)
  flags.DEFINE_string('output_dir', '', 'Where the report goes.')
  flags.register_validator('output_dir', bool, 'must be given')


def main():
  """Flags -> a report; 1 if a promise was broken."""
  args = flags.FLAGS
  for name in args.faults:
    if name not in FAULTS:
      raise UserError('--faults: %s is unknown; known are %s'
                      % (name, ', '.join(FAULTS)))
  files.writable_directory(args.output_dir, 'output_dir')
  output_dir = os.path.abspath(args.output_dir)
  earlier = noise.read_object(os.path.join(output_dir, _RESULT[0]),
                              'results of this command') or {}
  mountable = bool(set(args.faults) & set(_WITH_MOUNTS)) and enter_mounts()
  rows = collections.OrderedDict(
      ((row['fault'], row['runtime']), row) for row in earlier.get('rows', []))
  broken = False
  with tempfile.TemporaryDirectory(dir=output_dir) as directory, \
      concurrent.futures.ProcessPoolExecutor(
          1, multiprocessing.get_context('spawn')) as checker:
    bench = Bench(output_dir, directory, args.steps, args.seed, checker)
    with contextlib.ExitStack() as stack:
      stack.callback(bench.stop)
      bench.prepare()
      for name in args.faults:
        bench.tally = Tally(name, bench.version)
        if name in _WITH_MOUNTS and not mountable:
          bench.tally.note = 'not possible here'
        else:
          FAULTS[name](bench, args.count)
          bench.stop()
          bench.clear()
        rows[name, bench.version] = bench.tally.row()
        write_report(output_dir, list(rows.values()))
        broken = broken or bool(bench.tally.violations)
  print(_text(os.path.join(output_dir, _RESULT[1])), flush=True)
  return command.FAILED if broken else 0


def cli():
  """The command; takes its arguments from the command line."""
  define_flags()
  command.run(main)


if __name__ == '__main__':
  cli()
