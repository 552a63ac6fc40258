"""mentornet_dd.sh: which commands it runs, bad input."""
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, 'scripts', 'mentornet_dd.sh')


def _run(*args):
  process = subprocess.Popen(
      ['bash', SCRIPT] + list(args), stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True, cwd='/')
  out, _ = process.communicate(timeout=100)
  return process.returncode, out


@pytest.fixture
def python(tmp_path):
  """A stand-in for Python that prints what it was to run."""
  script = tmp_path / 'python'
  script.write_text('#!/bin/sh\necho "$@"\n')
  script.chmod(0o755)
  return f'--python={script}'


def test_commands_from_images_to_a_mentornet(python):
  code, out = _run(python, '--dataset=cifar10', '--archive=a b.tar.gz',
                   '--noise_level=0.6', '--output_dir=nowhere/dd', '--',
                   '--studentnet=resnet8_thin')
  assert code == 0
  prepare, train, learn = out.splitlines()
  work = 'runs/mentornet_dd/cifar10'
  assert prepare.startswith('code/prepare_data.py --dataset_name=cifar10 ')
  assert '--skip_train=45000' in prepare and '--archive=a b.tar.gz' in prepare
  assert '--noise_levels=0.6 ' in prepare
  assert f'--output_dir={work}/data ' in prepare
  assert train == (
      f'code/cifar_train_mentormix.py --preset=cpu --data_dir={work}/data/0.6 '
      f'--train_log_dir={work}/train --loss_csv_file={work}/mentornet_dd.csv '
      '--studentnet=resnet8_thin')
  assert learn == (f'code/train_mentornet.py --curriculum={work}/mentornet_dd'
                   '.csv --output_dir=nowhere/dd')


def test_digits_are_the_default(python):
  code, out = _run(python, '--overwrite')
  assert code == 0
  prepare, train, learn = out.splitlines()
  assert '--dataset_name=digits' in prepare and '--archive' not in prepare
  assert '--max_number_of_steps=2000' in train
  assert learn.endswith('--output_dir=runs/mentornet_dd/digits/mentornet_dd '
                        '--overwrite')


@pytest.mark.parametrize('flags,message', [
    (['--dataset=mnist'], '--dataset=mnist is not digits, cifar10 or cifar100'),
    (['--noise_level=40'], '--noise_level=40 is not a number such as 0.4'),
    (['--noise_level=0.40'], '--noise_level=0.40 is not a number such as'),
    (['--python=/nowhere/python'], '--python=/nowhere/python does not exist'),
    (['--', '--loss_csv_file=x.csv'], '--loss_csv_file=x.csv after --: the'),
    (['--output_dir=code'], '--output_dir=code exists; add --overwrite'),
    (['--noise=0.4'], "unknown argument '--noise=0.4'"),
])
def test_bad_input_is_one_line(python, flags, message):
  code, out = _run(python, '--output_dir=nowhere/dd', *flags)
  assert code == 2
  assert out.count('\n') == 1 and message in out
