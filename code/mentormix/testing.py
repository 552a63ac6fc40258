"""What several tests share."""
import contextlib
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import typing
from unittest import mock

from absl import app
from absl.testing import flagsaver
from hypothesis import strategies
import numpy as np
import pytest

from mentormix.data import datasets
from mentormix.data import png as png_lib
from mentormix.mentornet import weights as mentornet_weights
from mentormix.runtime import tf

CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MENTOR = os.path.join(os.path.dirname(CODE), 'mentornet_models', 'mentornet_pd')

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Finished(typing.NamedTuple):
  """How a command ended."""
  code: int
  out: str  # What it printed.
  err: str  # What it wrote to stderr.


def run_command(module, *args, cwd=None):
  """Runs a command in this process, where TensorFlow is loaded already.

  Flags, signal handlers, the environment, the working directory and
  TensorFlow's default graph are restored afterwards. Text that native code or a
  child process writes is not caught; use `run` for that.

  Args:
    module: the script, an imported module.
    *args: its command line.
    cwd: the directory to run it in.

  Returns:
    A `Finished`.
  """
  out, err = io.StringIO(), io.StringIO()
  with contextlib.ExitStack() as stack:
    app.define_help_flags()  # absl defines them once in a process.
    stack.enter_context(flagsaver.flagsaver())  # Removes what is defined below.
    for number in _SIGNALS:
      stack.callback(signal.signal, number, signal.getsignal(number))
    stack.enter_context(mock.patch.dict(os.environ))
    stack.enter_context(mock.patch.object(
        sys, 'argv', [module.__file__] + [str(arg) for arg in args]))
    stack.enter_context(mock.patch.object(  # Where --help looks.
        sys.modules['__main__'], '__doc__', None))
    stack.callback(os.chdir, os.getcwd())
    if cwd is not None:
      os.chdir(str(cwd))
    stack.enter_context(tf.Graph().as_default())
    stack.enter_context(contextlib.redirect_stdout(out))
    stack.enter_context(contextlib.redirect_stderr(err))
    code = _exit_code(module)
  return Finished(code, out.getvalue(), err.getvalue())


def _exit_code(module):
  """Runs the command; 1 with a traceback for an unexpected error."""
  try:
    module.cli()
  except SystemExit as error:
    return error.code or 0
  except Exception:
    traceback.print_exc()
    return 1
  return 0


def to_flags(**settings):
  """Settings as a command line: --name=value for each."""
  return [f'--{name}={value}' for name, value in sorted(settings.items())]


def train_settings(digits, **settings):
  """Settings of a run of three steps on the digits; `settings` change them."""
  return dict(
      dict(dataset_name='digits', studentnet='resnet8_thin', batch_size=16,
           data_dir=os.path.join(digits, '0.4'), trained_mentornet_dir=MENTOR,
           max_number_of_steps=3, num_readers=1, num_preprocessing_threads=1,
           device_id=''), **settings)


def assert_one_line(finished, code, *words):
  """Asserts that a command failed with one line that holds these words."""
  found, out, err = finished
  assert found == code, (out, err)
  assert err.count('\n') == 1 and 'Traceback' not in err, err
  for word in words:
    assert word in err, err


def golden():
  """Numbers that the published code produced, name -> array."""
  path = os.path.join(os.path.dirname(__file__), 'testdata', 'published.npz')
  with np.load(path) as arrays:
    return dict(arrays)


def published_inception_resnet_v2():
  """Name -> shape, of tf-slim's checkpoint from 2016."""
  path = os.path.join(os.path.dirname(__file__), 'testdata',
                      'inception_resnet_v2_variables.tsv.gz')
  with gzip.open(path, 'rt') as f:
    rows = [line.rstrip('\n').split('\t') for line in f]
  return {name: json.loads(shape) for name, shape in rows}


def run(script, cwd, *args, python=sys.executable):
  """Runs a script in a directory, perhaps with another Python: `Finished`."""
  process = subprocess.run(
      [python, script, *args], cwd=str(cwd), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, universal_newlines=True, check=False)
  return Finished(process.returncode, process.stdout, process.stderr)


def write_records(path, images, labels, clean_labels=None):
  """Writes a TFRecord file, as prepare_data.py does, of images [N, H, W, 3]."""
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for n, image in enumerate(images):
      png = png_lib.encode_png(np.asarray(image, np.uint8))
      clean = None if clean_labels is None else clean_labels[n]
      writer.write(datasets.encode_example(png, labels[n], clean,
                                           source_id=str(n)))


def replace_record(path, index, record):
  """Replaces record number `index` of a TFRecord file by these bytes."""
  records = list(tf.python_io.tf_record_iterator(str(path)))
  records[index] = record
  with tf.python_io.TFRecordWriter(str(path)) as writer:
    for each in records:
      writer.write(each)


@contextlib.contextmanager
def small_disk(size='4m'):
  """Yields a directory on a disk of its own; skips the test if it may not."""
  with tempfile.TemporaryDirectory() as directory:
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=' + size, 'tmpfs',
                        directory], stderr=subprocess.DEVNULL):
      pytest.skip('only root can mount a disk')
    try:
      yield directory
    finally:
      subprocess.check_call(['umount', '-l', directory])


def fill_disk(directory):
  """Leaves no byte on the disk of a directory."""
  with open(os.path.join(directory, 'filler'), 'ab', buffering=0) as f:
    for size in (1 << 16, 1):
      with contextlib.suppress(OSError):
        while True:
          f.write(bytes(size))


def weights(directory):
  """Name -> value of all variables in the last checkpoint of a directory."""
  reader = tf.train.load_checkpoint(str(directory))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def save_published_mentornet(path):
  """Saves a MentorNet of random weights as the published code names them."""
  known = golden()
  with tf.Graph().as_default(), tf.Session() as session:
    for name, _ in mentornet_weights.SHAPES:
      tf.get_variable(name, initializer=tf.constant(known['mn/random/' + name]))
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, str(path))


def assert_same_run(one, other):
  """Two runs end with the same variables, up to how threads add."""
  assert sorted(one) == sorted(other)
  for name in one:
    np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4,
                               err_msg=name)


@strategies.composite
def damaged(draw, data):
  """Strategy for bytes with some bits flipped, truncated, or as they are."""
  changed = bytearray(data)
  bits = strategies.integers(0, 8 * len(data) - 1)
  for bit in draw(strategies.lists(bits, max_size=3, unique=True)):
    changed[bit // 8] ^= 1 << bit % 8
  return bytes(changed[:draw(strategies.just(len(data))
                             | strategies.integers(0, len(data) - 1))])
