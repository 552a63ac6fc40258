"""find_wrong_labels.sh: from a folder of images to a page; bad input."""
import csv
import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, 'scripts', 'find_wrong_labels.sh')


def _run(*args, cwd='/'):
  process = subprocess.Popen(
      ['bash', SCRIPT] + list(args), stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True, cwd=str(cwd))
  out, _ = process.communicate(timeout=300)
  return process.returncode, out


@pytest.fixture
def images(tmp_path):
  """A folder of 200 images, red or blue; 3 are in the wrong class."""
  random = np.random.RandomState(0)
  for name, column in (('blue ones', 2), ('red', 0)):
    (tmp_path / 'my images' / name).mkdir(parents=True)
    for n in range(100):
      pixels = random.randint(0, 60, [24, 24, 3])
      shown = 2 - column if n == 7 or (n == 9 and column == 2) else column
      pixels[..., shown] += 150
      Image.fromarray(pixels.astype(np.uint8)).save(
          str(tmp_path / 'my images' / name / f'{n}.png'))
  return tmp_path / 'my images'


def test_wrong_labels_come_first(images, tmp_path):
  """And the same command again does nothing new."""
  command = ('my images', '--output_dir=out', '--num_images=12',
             f'--python={sys.executable}', '--', '--batch_size=40',
             '--max_number_of_steps=40', '--device_id=')
  code, out = _run(*command, cwd=tmp_path)
  assert code == 0, out
  scores = tmp_path / 'out' / 'scores'
  assert out.endswith(f'{scores}/suspicious.html\n')
  with open(str(scores / 'scores.csv'), newline='') as f:
    rows = list(csv.DictReader(f))
  assert len(rows) == 200
  assert {row['id'] for row in rows[:3]} == {
      'blue ones/7.png', 'blue ones/9.png', 'red/7.png'}
  page = (scores / 'suspicious.html').read_text()
  assert page.count('data:image/jpeg') == 12  # The images of the folder.
  assert page.index('red/7.png') < page.index('>12. ')
  code, out = _run(*command, cwd=tmp_path)
  assert code == 0 and 'kept' in out and 'is already at step 40' in out


@pytest.mark.parametrize('flags,message', [
    ([], 'which directory has the images?'),
    (['none'], 'none is not a directory'),
    (['.', '.'], "two directories: '.' and '.'"),
    (['.', '--size=3'], "unknown argument '--size=3'"),
    (['.', '--image_size=big'], '--image_size=big is not a number'),
    (['.', '--python=/none'], '--python=/none does not exist'),
    (['.', '--', '--data_dir=x'], '--data_dir=x after --: the script sets')])
def test_bad_input_is_one_line(tmp_path, flags, message):
  code, out = _run(*flags, cwd=tmp_path)
  assert code == 2 and len(out.splitlines()) == 1 and message in out


def test_help():
  code, out = _run('--help')
  assert code == 0 and out.startswith('Lists the suspicious labels')
  assert 'set -e' not in out
