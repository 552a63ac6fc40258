"""Tests of the command that makes data sets."""
import os
import re
import signal

import cifar_eval
import cifar_train_mentormix
import prepare_data
import pytest

from mentormix import testing
from mentormix.data import cifar_archive_test
from mentormix.data.preparation_test import contents
from mentormix.data.preparation_test import facts
from mentormix.data.preparation_test import fail_after
from mentormix.data.preparation_test import image_folder


def test_command(tmp_path):
  code, out, err = testing.run_command(
      prepare_data, '--dataset_name=digits', '--noise_levels=0.2',
      '--noise_type=asymmetric', cwd=tmp_path)
  assert (code, err) == (0, '')
  assert re.search(r'^data/digits/0.2: 1397 examples, asymmetric noise, '
                   r'0.2 asked, 0.\d{4} realised$', out, re.MULTILINE)
  assert os.listdir(str(tmp_path / 'data')) == ['digits']
  assert sorted(os.listdir(str(tmp_path / 'data' / 'digits'))) == ['0.2', 'val']
  assert len(contents(tmp_path / 'data' / 'digits' / 'val')) == 11
  assert len(contents(tmp_path / 'data' / 'digits' / '0.2')) == 13


@pytest.mark.parametrize('arguments, code, words', [
    (['--help'], 1, '--noise_levels'),  # absl exits with 1.
    (['--dataset_name=digits', '--num_train=1398'], 2, 'num_train=1398')])
def test_help_and_bad_input_do_not_load_slow_libraries(
    tmp_path, monkeypatch, arguments, code, words):
  for name in ('tensorflow', 'pooch', 'requests'):
    (tmp_path / f'{name}.py').write_text('raise ImportError("too early")')
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  found, out, err = testing.run(prepare_data.__file__, tmp_path, *arguments)
  assert found == code and words in out + err


@pytest.fixture(name='inputs', scope='module')
def fixture_inputs(tmp_path_factory):
  """Archives good and bad; returns their directory."""
  directory = tmp_path_factory.mktemp('files')
  cifar_archive_test.write_cifar_archive(
      str(directory / 'ten.tar.gz'), 'cifar10')
  whole = (directory / 'ten.tar.gz').read_bytes()
  (directory / 'half.tar.gz').write_bytes(whole[:len(whole) // 2])
  (directory / 'folder').mkdir()
  image_folder(directory / 'images')
  (directory / 'labels.json').write_text('[0, 1]')
  (directory / 'val.json').write_text('[0, 1]')
  return directory


TEN = ['--dataset_name=cifar10', '--archive=ten.tar.gz']
CIFAR10 = ['--dataset_name=cifar10']
DIGITS = ['--dataset_name=digits']
OWN = ['--dataset_name=own', '--image_dir=images']
FROM_FILE = DIGITS + ['--noise_file=labels.json']


@pytest.mark.parametrize('arguments, words', [
    ([], '--dataset_name.*cifar10'),
    (['--dataset_name=mnist'], 'dataset_name.*cifar10'),
    (['digits'], 'digits'),
    (DIGITS + ['--nose_type=symmetric'], 'nose_type.*noise_type'),
    (DIGITS + ['--noise_levels=1.5'], '1.5.*0 to 1'),
    (DIGITS + ['--noise_levels=-0.2'], '-0.2.*0 to 1'),
    (DIGITS + ['--noise_levels=0.2,half'], 'half.*0 to 1'),
    (DIGITS + ['--noise_levels=nan'], 'nan.*0 to 1'),
    (DIGITS + ['--noise_levels='], 'noise_levels= must.*write'),
    (DIGITS + ['--noise_levels=0.2,0.20'], '0.2,0.20 must be different'),
    (DIGITS + ['--noise_type=pair'], 'noise_type.*symmetric_others'),
    (DIGITS + ['--num_shards=0'], 'num_shards'),
    (DIGITS + ['--num_shards=401'], 'num_shards.*400'),
    (DIGITS + ['--num_train=1398'], 'num_train=1398.*1397'),
    (DIGITS + ['--num_train=5', '--num_shards=10'], 'num_shards=10.*5 images'),
    (DIGITS + ['--num_train=0'], 'num_train'),
    (DIGITS + ['--skip_train=1397'], 'skip_train=1397: of the 1397.* 0 are'),
    (DIGITS + ['--skip_train=1300', '--num_train=98'],
     'num_train=98 with --skip_train=1300.* 97 are left'),
    (DIGITS + ['--seed=-1'], 'seed'),
    (DIGITS + ['--archive=ten.tar.gz'], 'embedded.*--archive'),
    (DIGITS + ['--output_dir=ten.tar.gz/x'], 'output_dir.*Not a directory'),
    (DIGITS + ['--output_dir=/dev/null/x'], 'output_dir.*/dev/null'),
    (CIFAR10 + ['--archive='], '--archive is empty'),
    (CIFAR10 + ['--archive=none.tar.gz'], 'none.tar.gz cannot be read'),
    (CIFAR10 + ['--archive=half.tar.gz'], 'half.tar.gz .*is truncated'),
    (CIFAR10 + ['--archive=ftp://x/y.tar.gz'], 'http'),
    (CIFAR10 + ['--archive=http://127.0.0.1:1/'], 'http'),
    (CIFAR10 + ['--archive=http://[bad'], 'http://.bad is neither'),
    (TEN + ['--md5=' + '0' * 32], 'ten.tar.gz has md5'),
    (TEN + ['--dataset_name=cifar100'], 'holds cifar10,'),
    (FROM_FILE, 'labels.json holds 2 labels; there are 1397'),
    (FROM_FILE + ['--noise_levels=0.2'], 'noise_levels and --noise_file'),
    (FROM_FILE + ['--noise_type=symmetric'], 'noise_type and --noise_file'),
    (FROM_FILE + ['--noise_key=worse'], 'has no keys.*--noise_key'),
    (FROM_FILE + ['--noise_index=none.npy'], 'none.npy is not a file'),
    (DIGITS + ['--noise_file='], 'noise_file is empty'),
    (DIGITS + ['--noise_file=val.json'], 'cannot name.*val.json'),
    (DIGITS + ['--noise_key=worse'], 'noise_key needs --noise_file'),
    (DIGITS + ['--noise_index=x'], 'noise_index needs --noise_file'),
    (DIGITS + ['--image_size=24'], 'image_size needs --image_dir'),
    (DIGITS + ['--image_dir=images'], 'digits does not fit --image_dir'),
    (['--image_dir=images'], 'dataset_name=None does not fit'),
    (['--dataset_name=own'], 'own is unknown.*--image_dir'),
    (['--dataset_name=a/b', '--image_dir=images'], 'letters'),
    (OWN + ['--archive=ten.tar.gz'], 'archive and --image_dir'),
    (OWN + ['--md5=' + '0' * 32], 'md5 and --image_dir'),
    (OWN + ['--image_size=30'], '30 is not a multiple of 4'),
    (OWN + ['--image_size=1024'], 'image_size'),
    (OWN + ['--noise_type=symmetric'], 'noise_type=symmetric.*--noise_levels'),
    (OWN + ['--num_shards=21'], 'num_shards=21.*20 images'),
    (['--dataset_name=own', '--image_dir=folder'],
     'folder needs two classes .*needs train/<class>'),
])
def test_bad_input_is_one_line(inputs, arguments, words):
  before = sorted(contents(inputs))
  code, _, err = testing.run_command(prepare_data, *arguments, cwd=inputs)
  assert code == 2, err
  assert re.search(words, err), err
  assert ' prepare_data.py: error: ' in err and err.count('\n') == 1
  assert sorted(contents(inputs)) == before
  assert not (inputs / 'data').exists()


def test_custom_images_are_trained_and_evaluated_on(tmp_path):
  image_folder(tmp_path / 'images')
  for module, flags in (
      (prepare_data, dict(
          image_dir='images', image_size=24, output_dir='out')),
      (cifar_train_mentormix, dict(
          batch_size=8, studentnet='resnet8_thin', data_dir='out/0',
          train_log_dir='run', trained_mentornet_dir='threshold',
          max_number_of_steps=2)),
      (cifar_eval, dict(
          batch_size=8, data_dir='out/val', checkpoint_dir='run',
          eval_dir='eval', once=True))):
    code, _, err = testing.run_command(module, *testing.to_flags(
        dataset_name='own', **flags), cwd=tmp_path)
    assert code == 0, err
  results = tmp_path / 'eval' / 'results.csv'
  header, row = results.read_text().splitlines()[:2]
  found = dict(zip(header.split(','), row.split(',')))
  assert found['count'] == '20'
  assert float(found['top5']) == 1  # There are no more than five.


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request):
  """A signal that is not ignored, even where the tests run under nohup."""
  previous = signal.signal(request.param, signal.SIG_DFL)
  yield request.param
  signal.signal(request.param, previous)


def prepare(tmp_path):
  return testing.run_command(
      prepare_data, '--dataset_name=digits', '--noise_levels=0.4',
      '--output_dir=out', cwd=tmp_path)


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, number):
  with monkeypatch.context() as patch:
    fail_after(patch, 500, lambda: os.kill(os.getpid(), number))
    code, _, err = prepare(tmp_path)
  assert code == 128 + number
  assert f'Stopped by signal {int(number)}' in err
  assert os.listdir(str(tmp_path / 'out')) == ['val']  # That was finished.
  code, out, _ = prepare(tmp_path)  # Resumes where it stopped.
  assert code == 0 and out.count('kept') == 1
  assert len(facts(tmp_path)['sha256']) == 12


def test_ignored_signals_stay_ignored(tmp_path, monkeypatch):
  previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does.
  try:
    fail_after(monkeypatch, 500, lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert prepare(tmp_path).code == 0
  finally:
    signal.signal(signal.SIGHUP, previous)
  assert facts(tmp_path)
