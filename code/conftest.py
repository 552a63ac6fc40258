"""Lets tests import from this folder, share the cores and share a run."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

if 'PYTEST_XDIST_WORKER' in os.environ:
  # One busy thread per test process. Read when TensorFlow loads.
  os.environ.setdefault('OMP_NUM_THREADS', '1')
  os.environ.setdefault('TF_NUM_INTRAOP_THREADS', '1')

# In tests, compiling takes JAX longer than running.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
  """The digits with 40% of wrong labels: a directory with 0.4 and val."""
  import prepare_data

  from mentormix import testing
  directory = str(tmp_path_factory.mktemp('digits'))
  code, out, err = testing.run_command(prepare_data, *testing.to_flags(
      dataset_name='digits', noise_levels='0.4', output_dir=directory))
  assert code == 0, err
  assert '0.4001 realised' in out
  return directory


@pytest.fixture(scope='session')
def train(digits):
  """A function that trains for three steps, or as its arguments say."""
  import cifar_train_mentormix

  from mentormix import testing

  def run(*args, **settings):
    return testing.run_command(
        cifar_train_mentormix,
        *testing.to_flags(**testing.train_settings(digits, **settings)), *args)

  return run


@pytest.fixture(scope='session')
def trained(train, tmp_path_factory):
  """The --train_log_dir of a run of three steps. Only read it."""
  directory = str(tmp_path_factory.mktemp('run') / 'train')
  code, out, err = train(train_log_dir=directory)
  assert code == 0, err
  assert 'step 1/3' in out and 'trained to step 3' in out
  return directory
