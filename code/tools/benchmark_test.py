"""The benchmark: its figures, its rows, its processes."""
import io
import itertools
import json
import os

import benchmark
import benchmark_rows
import make_photos
import numpy as np
from PIL import Image
import prepare_data
import pytest

from mentormix import config as config_lib
from mentormix import testing
from mentormix.data import datasets
from mentormix.data import splits
from mentormix.messages import RunError, UserError
from mentormix.runtime import tf


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Settings on 40 examples in two files."""
  directory = tmp_path_factory.mktemp('data')
  random = np.random.RandomState(0)
  for shard in range(2):
    testing.write_records(
        directory / f'cifar10_train-{shard}',
        random.randint(256, size=[20, 32, 32, 3]), [n % 10 for n in range(20)],
        [(n + n // 9) % 10 for n in range(20)])
  return config_lib.TrainConfig(
      dataset_name='cifar10', data_dir=str(directory), batch_size=4,
      studentnet='resnet8_thin', trained_mentornet_dir='threshold',
      train_log_dir='unused', device_id='')


def _rows(config):
  """Rows that note in a file when they run."""
  def row(name):
    def run():
      with open(config.train_log_dir, 'a') as f:
        f.write(f'{config.batch_size}{name} ')
    return benchmark_rows.Row(run)

  if config.batch_size == 3:
    os._exit(1)
  if config.batch_size == 4:
    raise UserError('--batch_size=4 is not for this')
  return {'a': row('a'), 'b': row('b')}, dict(pid=os.getpid())


@pytest.mark.slow
def test_configurations_take_turns_in_processes(config, tmp_path):
  config = config._replace(train_log_dir=str(tmp_path / 'turns'))
  configs = [config._replace(batch_size=size) for size in (1, 2)]
  found = benchmark.measure(_rows, configs, repeats=5)
  turns = itertools.groupby((tmp_path / 'turns').read_text().split())
  assert [(row, len(list(run)) - benchmark._WARM_UP) for row, run in turns] == [
      (row, samples) for samples in (2, 1, 1, 1)
      for row in ('1a', '2a', '1b', '2b')]
  assert [f['facts']['batch_size'] for f in found] == [1, 2]
  assert len({f['facts']['pid'] for f in found} | {os.getpid()}) == 3
  low, median, high = found[0]['rows']['a']['wall']
  assert 0 < low <= median <= high
  with pytest.raises(RunError, match='a process of the benchmark has ended'):
    benchmark.measure(_rows, [config._replace(batch_size=3)], 1)
  with pytest.raises(UserError, match='--batch_size=4 is not for this'):
    benchmark.measure(_rows, [config._replace(batch_size=4)], 1)


def test_the_figures(config, tmp_path, monkeypatch):
  def measure(build, configs, repeats):
    assert repeats == 5
    spread = lambda ms: [1e-3 * (ms - 1), 1e-3 * ms, 1e-3 * (ms + 1)]
    row = lambda ms: dict(wall=spread(ms), cpu=spread(2 * ms))
    facts = dict(title='A step', operations={'floor': 3e9})
    rows = {'floor': row(100), 'step': row(104)}
    if build is benchmark_rows.inputs:
      rows = {'ours, threads: 1': row(2), 'published, threads: 1': row(8)}
    return [dict(facts=dict(c._asdict(), **facts), rows=rows) for c in configs]

  monkeypatch.setattr(benchmark, 'measure', measure)
  code, out, err = testing.run_command(
      benchmark, '--precision=float32', '--precision=mixed',
      *testing.to_flags(data_dir=config.data_dir, repeats=5,
                        output=tmp_path / 'speed.json'))
  assert code == 0, err
  figures = json.loads((tmp_path / 'speed.json').read_text())
  assert [t['facts']['precision'] for t in figures['tables']] == [
      'float32', 'float32', 'mixed']
  assert '--repeats=5' in figures['command']
  assert '## A step\n' in out
  assert ('| floor | 100.00 (99.00 to 101.00) | 200.00 (199.00 to 201.00) | '
          '1.000 | 1.000 | 1280 | 30.0 |') in out
  assert '| step | 104.00 (103.00 to 105.00) | 208.00' in out
  assert '| 4.000 | 4.000 | 16000 |  |' in out


@pytest.mark.parametrize('flag,named', [
    ('--data_dir=', 'data_dir'), ('--studentnet=x', 'resnet32_thin'),
    ('--batch_size=0', '--batch_size=0'), ('--xla=maybe', 'xla'),
    ('--precision=float16', 'precision'), ('--repeats=0', 'repeats'),
    ('--output=/dev/null/x', '--output'),
    ('--trained_mentornet_dir=', '--trained_mentornet_dir')])
def test_errors_are_one_line(flag, named):
  testing.assert_one_line(
      testing.run_command(benchmark, '--data_dir=data', flag), 2, named)


def test_rows_of_a_step(config):
  rows, facts = benchmark_rows.steps(config)
  assert list(rows) == [
      'floor', 'step', 'step + input', 'published step + input', 'mentor',
      'mixing', 'update', 'input', 'matrix product, float32']
  for row in rows.values():
    row.run()
  assert facts['peak_memory_mib'] > 50 and ' MiB' in facts['title']
  operations = facts['operations']
  assert operations['step'] == operations['published step + input']
  # The step has at most one more, the first kernel's gradient by its images.
  first = 2 * 4 * 32 * 32 * 3 * 9 * 16
  assert operations['step'] - operations['floor'] in (0, first)
  assert operations['matrix product, float32'] == 2 * 2048 ** 3


def test_rows_of_the_input(config):
  rows, _ = benchmark_rows.inputs(config)
  assert list(rows)[:3] == ['ours, threads: 1', 'published, threads: 1',
                            'ours, threads: 2']
  for row in rows.values():
    assert row.run() == [None, None]  # Made, but not copied.


def test_photographs_beside_tf_data(tmp_path):
  code, out, err = testing.run_command(make_photos, *testing.to_flags(
      output_dir=tmp_path / 'photos', num_images=20, width=48, height=40))
  assert code == 0, err
  testing.assert_one_line(testing.run_command(
      make_photos, f'--output_dir={tmp_path}/photos'), 2, 'other files')
  lists = {f'{split}_list': tmp_path / 'photos' / f'{name}.csv'
           for split, name in (('image', 'train'), ('val', 'val'))}
  code, out, err = testing.run_command(prepare_data, *testing.to_flags(
      dataset_name='many', image_root=tmp_path / 'photos', num_workers=1,
      output_dir=tmp_path / 'data', num_shards=2, **lists))
  assert code == 0, err
  config = config_lib.TrainConfig(
      dataset_name='many', data_dir=str(tmp_path / 'data' / '0'), batch_size=4,
      image_size=32, studentnet='resnet8_thin', device_id='',
      trained_mentornet_dir='threshold', train_log_dir='unused')
  rows, _ = benchmark_rows.inputs(config)
  assert list(rows)[:2] == ['ours, threads: 1', 'tf.data, threads: 1']
  for row in rows.values():
    assert row.run() == [None, None]
  rows, _ = benchmark_rows.steps(config)
  assert 'published step + input' not in rows
  rows['step + input'].run()


def test_tf_data_does_the_same_work(tmp_path):
  """Images of one colour for each class; both give them the same range."""
  split = _one_colour_split(tmp_path)
  for train_batch in (splits.Split.train_batch, benchmark_rows._tf_data):
    with tf.Graph().as_default(), tf.Session() as session:
      batch = train_batch(split, 6, num_threads=2)
      coordinator = tf.train.Coordinator()
      threads = tf.train.start_queue_runners(session, coordinator)
      seen = set()
      for _ in range(10):
        images, labels = session.run([batch.images, batch.labels])
        assert images.shape == (6, 24, 24, 3)
        np.testing.assert_allclose(
            images.mean(axis=(1, 2, 3)), 2 * (50 + 50 * labels) / 255 - 1,
            atol=0.02)
        seen.update(labels)
      coordinator.request_stop()
      session.run(tf.no_op())
      coordinator.join(threads, ignore_live_threads=True)
    assert seen == {0, 1, 2}


def _one_colour_split(tmp_path):
  """30 photographs of three grey levels."""
  path = str(tmp_path / 'own_train-00000-of-00001')
  with tf.python_io.TFRecordWriter(path) as writer:
    for n in range(30):
      stream = io.BytesIO()
      Image.new('RGB', (40 + n, 50), 3 * (50 + 50 * (n % 3),)).save(
          stream, 'JPEG')
      writer.write(datasets.encode_example(stream.getvalue(), n % 3, n % 3))
  dataset = datasets.Dataset('own', 3, 24, datasets.LABEL, photographs=True)
  return splits.Split(dataset, 'train', [datasets.Shard(path)], 30, 'ncr')
