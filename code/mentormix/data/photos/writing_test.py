"""Tests of writing shards: killed, resumed, by several processes, in order."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import prepare_data
from mentormix.data import datasets
from mentormix.data import noise
from mentormix.data.photos import pictures
from mentormix.data.photos import rows as rows_lib
from mentormix.data.photos import writing
from mentormix.data.photos.testing import (
    facts, jpeg, ok, prepare, put, records, refused)

OWN = dict(dataset_name='own', image_list='train.csv', val_list='val.csv',
           image_root='images')
COUNT = 40


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  for name, rows in (('train', range(COUNT)), ('val', range(COUNT, COUNT + 4))):
    put(tmp_path / f'{name}.csv', ''.join(f'{k}.jpg {k % 3}\n' for k in rows))
    for k in rows:
      put(tmp_path / 'images' / f'{k}.jpg', jpeg(k))
  return tmp_path


def contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_rows_keep_what_they_are_given():
  given = [rows_lib.Row('a/\u00e9.jpg', 3, None, '\u00e9'),
           rows_lib.Row('', 0, noise.WRONG_LABEL, 'x'),
           rows_lib.Row(rows_lib.in_tar('t', 512, 7), 2, 2, 'y\udcff')]
  rows = rows_lib.Rows(given)
  assert list(rows) == given and len(rows) == 3
  assert rows.labels().tolist() == [3, 0, 2] and rows.clean() is None
  assert rows_lib.Rows(given[1:]).clean().tolist() == [-2, 2]
  assert rows.md5() != rows_lib.Rows(given[::-1]).md5()


def test_two_processes_write_what_one_writes(folder):
  ok(prepare(folder, **OWN))
  ok(prepare(folder, **dict(OWN, output_dir='two', num_workers=2)))
  for name in ('0', 'val'):
    assert contents(folder / 'out' / name) == contents(folder / 'two' / name)


def test_order_is_random_and_of_the_seed(folder):
  ok(prepare(folder, num_shards=2, **OWN))
  order = list(records(folder / 'out' / '0'))
  assert order != sorted(order) and len(order) == COUNT
  labels = [record[datasets.LABEL]
            for record in records(folder / 'out' / '0').values()]
  assert 0 < np.mean(np.diff(labels) == 0) < .6
  assert list(records(folder / 'out' / 'val')) == [
      f'{k}.jpg' for k in range(COUNT, COUNT + 4)]
  ok(prepare(folder, num_shards=2, seed=1, **dict(OWN, output_dir='one')))
  assert list(records(folder / 'one' / '0')) != order


def test_bad_images_are_listed(folder):
  put(folder / 'images' / '3.jpg', jpeg(3)[:300])
  put(folder / 'images' / '4.jpg', '<html>')
  (folder / 'images' / '5.jpg').unlink()
  out = ok(prepare(folder, **OWN))
  assert ('37 photographs, labels as listed; of 40 listed, 1 missing '
          '(missing.csv) and 2 damaged (damaged.csv)') in out
  lines = (folder / 'out' / '0' / 'damaged.csv').read_text().splitlines()
  assert lines[0] == 'label,clean_label,source_id,path,reason'
  assert lines[1].startswith('0,,3.jpg,images/3.jpg,') and len(lines) == 3
  assert lines[2] == '1,,4.jpg,images/4.jpg,it is a web page'
  found = records(folder / 'out' / '0')
  assert len(found) == 37 and not {'3.jpg', '4.jpg', '5.jpg'} & set(found)
  assert facts(folder / 'out' / '0')['num_examples'] == 37
  assert prepare(folder, **OWN).out.count('kept') == 2


def test_shards_of_damaged_images_only_are_left_out(folder):
  for k in range(COUNT - 2):
    put(folder / 'images' / f'{k}.jpg', 'x')
  ok(prepare(folder, num_shards=4, **OWN))
  dataset = datasets.get('own', str(folder / 'out' / '0'))
  found = datasets.find_files(dataset, 'train', str(folder / 'out' / '0'))
  assert 1 <= len(found) == facts(folder / 'out' / '0')['num_shards'] <= 2
  assert len(records(folder / 'out' / '0')) == 2


def test_nothing_can_be_read(folder):
  for k in range(COUNT):
    put(folder / 'images' / f'{k}.jpg', 'x')
  refused(prepare(folder, **OWN),
          '0: none of its 40 images can be read; the first: images/')


@pytest.mark.parametrize('exception', [KeyboardInterrupt, OSError(28, 'full')])
def test_stopped_run_keeps_finished_shards(folder, monkeypatch, exception):
  calls = []

  def convert(data, max_side):
    calls.append(data)
    if len(calls) == COUNT // 2:
      raise exception
    return real(data, max_side)
  real = pictures.convert
  if isinstance(exception, OSError):  # Of writing, not of an image.
    rename = os.replace

    def replace(source, target):
      if target.endswith('0.unfinished/shard-00007'):
        raise exception
      rename(source, target)
    monkeypatch.setattr(writing.os, 'replace', replace)
  else:
    monkeypatch.setattr(pictures, 'convert', convert)
  code, _, err = prepare(folder, **OWN)
  assert code and err.count('\n') == 1, err
  assert not (folder / 'out' / '0').exists()
  monkeypatch.undo()
  if isinstance(exception, OSError):
    assert 'finished files are kept' in err
  out = ok(prepare(folder, **OWN))
  assert 'of 10 files are finished and kept' in out
  ok(prepare(folder, **dict(OWN, output_dir='again')))
  assert contents(folder / 'out' / '0') == contents(folder / 'again' / '0')
  assert not [name for name in os.listdir(str(folder / 'out'))
              if name.startswith('.')]


def test_shards_of_other_settings_are_not_kept(folder, monkeypatch):
  monkeypatch.setattr(writing, '_run', lambda *_: 1 / 0)
  assert prepare(folder, **OWN).code
  monkeypatch.undo()
  unfinished = folder / 'out' / '.val.unfinished'
  put(unfinished / 'shard-00000', 'old')
  put(unfinished / 'asked.json', json.dumps({'seed': 7}))
  ok(prepare(folder, **OWN))
  assert len(records(folder / 'out' / 'val')) == 4


@pytest.mark.slow
def test_killed_run_leaves_no_process_and_resumes(folder):
  """Neither do the processes that write outlive a parent that is killed."""
  for k in range(COUNT):  # Slow to check.
    put(folder / 'images' / f'{k}.jpg', jpeg(k, (1500, 1500)))
  command = [sys.executable, prepare_data.__file__, '--num_workers=2',
             '--output_dir=out'] + [f'--{k}={v}' for k, v in OWN.items()]
  run = subprocess.Popen(command, cwd=str(folder), stdout=subprocess.DEVNULL)
  unfinished = folder / 'out' / '.0.unfinished'
  until = time.time() + 120
  while not list(unfinished.glob('*.json')) or not list(
      unfinished.glob('shard-0000*.json')):
    assert time.time() < until and run.poll() is None
    time.sleep(.02)
  run.send_signal(signal.SIGKILL)
  run.wait()
  time.sleep(3)
  for name in os.listdir('/proc'):  # Where it exists.
    if name.isdecimal() and os.path.exists(f'/proc/{name}/cwd'):
      try:
        assert os.readlink(f'/proc/{name}/cwd') != str(folder), name
      except OSError:
        pass
  assert 'files are finished and kept' in ok(prepare(folder, **OWN))
  assert len(records(folder / 'out' / '0')) == COUNT


def test_many_rows_take_little_memory(tmp_path):
  """Two million rows are less than 500 MiB, as a tenth of them shows."""
  program = (
      'import resource, sys; sys.path.insert(0, sys.argv[1])\n'
      'from mentormix.data.photos import rows\n'
      'used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
      'before, table = used(), rows.Rows()\n'
      'for k in range(200000):\n'
      '  name = f"google/q{k // 600:04d}/a_name_of_usual_length_{k:012d}.jpg"\n'
      '  table.append(rows.Row("/data/webvision/" + name, k % 1000, None,'
      ' name))\n'
      'print((used() - before) / len(table))')
  found = subprocess.check_output(
      [sys.executable, '-c', program, os.path.dirname(prepare_data.__file__)],
      cwd=str(tmp_path))
  assert float(found) < .25  # KiB a row.
