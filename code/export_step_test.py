"""What export_step.py writes and refuses."""
import json
import os
import shlex

import export_step
import numpy as np
import pytest

from mentormix import config as config_lib
from mentormix import runtime
from mentormix import testing


def _export(digits, tmp_path, **settings):
  settings = testing.train_settings(
      digits, **dict(dict(batch_size=8, output_dir=tmp_path / 'out'),
                     **settings))
  return testing.run_command(export_step, *testing.to_flags(**settings))


@pytest.mark.skipif(not runtime.IS_1_15, reason='this is TensorFlow 2.x')
def test_1_15_cannot(digits, tmp_path):
  testing.assert_one_line(_export(digits, tmp_path), 2, 'TensorFlow 2.x')
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(runtime.IS_1_15, reason='1.15 cannot write StableHLO')
def test_files(digits, tmp_path):
  path = tmp_path / 'my step'
  code, out, err = _export(digits, tmp_path, example_dropout_rates='0.5,100',
                           output_dir=path)
  assert code == 0, err
  assert shlex.split(out)[-1] == f'--exported_dir={path}'
  assert sorted(os.listdir(str(path))) == [
      'augment.stablehlo', 'data.npz', 'noise.json', 'state.npz', 'step.json',
      'step.stablehlo']
  description = json.loads((path / 'step.json').read_text())
  with np.load(str(path / 'data.npz')) as arrays:
    images, labels = arrays['images'], arrays['labels']
    noisy = np.mean(labels != arrays['clean_labels'])
  assert images.shape == (len(labels), 32, 32, 3) and images.dtype == np.uint8
  assert noisy == pytest.approx(0.4, abs=0.001)
  assert config_lib.TrainConfig(**description['settings']) == (
      config_lib.TrainConfig(**testing.train_settings(
          digits, batch_size=8, example_dropout_rates='0.5,100',
          train_log_dir=str(path))))
  assert description['num_examples'] == len(labels)
  step = description['step']
  draws = [{k: v for k, v in row.items() if k not in ('name', 'kind', 'dtype')}
           for row in step['arguments'] if row['kind'] == 'draw']
  uniform = dict(distribution='uniform', low=0.0, high=1.0, shape=[8])
  assert draws == [
      uniform, dict(distribution='gumbel', shape=[8, 8]),
      dict(distribution='beta', alpha=8.0, shape=[8]), uniform]
  state = [row['name'] for row in step['arguments'] if row['kind'] == 'state']
  with np.load(str(path / 'state.npz')) as arrays:
    assert sorted(arrays) == sorted(state)
  # Every variable changes in a step.
  assert [row['name'] for row in step['results']][2:] == state
  # Two passes forward and one back, which is two products for each; the input
  # of the first layer needs no gradient. And a little for the MentorNet.
  widths = [(3, 16, 32)] + 2 * [(16, 16, 32)] + [
      (16, 32, 16), (32, 32, 16), (32, 64, 8), (64, 64, 8)]
  products = [9 * i * o * size ** 2 for i, o, size in widths] + [640]
  np.testing.assert_allclose(
      description['flops_per_step'], 2 * 8 * (4 * sum(products) - products[0]),
      rtol=1e-3)


@pytest.mark.skipif(runtime.IS_1_15, reason='1.15 cannot write StableHLO')
@pytest.mark.parametrize('settings,named', [
    (dict(output_dir=''), 'output_dir'),
    (dict(output_dir='/dev/null'), '--output_dir=/dev/null'),
    (dict(output_dir='/proc/a[1]/b'), '--output_dir'),
    (dict(trained_mentornet_dir=''), '--trained_mentornet_dir'),
    (dict(trained_mentornet_dir='v_star:self_paced'), 'train_mentornet.py'),
    (dict(batch_size=10000), '--batch_size=10000'),
    (dict(method='elr'), '--method=elr'),
    (dict(first_pass_interval_epochs=2), '--first_pass_interval_epochs=2'),
    (dict(sync_replicas='true'), '--sync_replicas')])
def test_errors_are_one_line(settings, named, digits, tmp_path):
  testing.assert_one_line(_export(digits, tmp_path, **settings), 2, named)
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(runtime.IS_1_15, reason='1.15 cannot write StableHLO')
def test_photographs_cannot_be_exported(digits, tmp_path):
  (tmp_path / 'photos').mkdir()
  (tmp_path / 'photos' / 'noise.json').write_text(json.dumps(dict(
      dataset_name='own', photographs=True, num_classes=3, num_examples=9)))
  testing.assert_one_line(_export(
      digits, tmp_path, dataset_name='own', data_dir=tmp_path / 'photos'), 2,
      'photos holds photographs of any size')


@pytest.mark.skipif(runtime.IS_1_15, reason='1.15 cannot write StableHLO')
@pytest.mark.parametrize('size,first_pass,named', [
    (12, 'training', '--studentnet=fast does not take images of 12x12'),
    (20, 'half', '--first_pass=half: --studentnet=fast')])
def test_the_student_must_take_the_images(size, first_pass, named, digits,
                                          tmp_path):
  (tmp_path / 'small').mkdir()
  (tmp_path / 'small' / 'noise.json').write_text(json.dumps(dict(
      dataset_name='own', image_size=size, num_classes=3, num_examples=9)))
  testing.assert_one_line(_export(
      digits, tmp_path, dataset_name='own', data_dir=tmp_path / 'small',
      studentnet='fast', first_pass=first_pass), 2, named)
