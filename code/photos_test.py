"""Photographs of several sizes: trained on, resumed, evaluated, ranked."""
import io
import json

import cifar_eval
import cifar_train_mentormix
import numpy as np
from PIL import Image
import pytest
import score_labels

from mentormix import config as config_lib
from mentormix import testing
from mentormix.data import datasets
from mentormix.data import noise
from mentormix.evaluation import results
from mentormix.runtime import tf


def _jpeg(label, height, width):
  """An image in the colour of its class."""
  pixels = np.full([height, width, 3], 40, np.uint8)
  pixels[..., label % 3] = 200
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, 'JPEG')
  return stream.getvalue()


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Three classes: 60 images to train on, 12 with wrong labels; 20 to test."""
  directory = tmp_path_factory.mktemp('photos')
  for folder, split, count in (('0.2', 'train', 60), ('val', 'test', 20)):
    (directory / folder).mkdir()
    for shard in range(2):
      with tf.python_io.TFRecordWriter(str(
          directory / folder / f'own_{split}-0000{shard}-of-00002')) as writer:
        for n in range(shard, count, 2):
          clean = n % 3
          label = (clean + 1) % 3 if split == 'train' and n < 12 else clean
          writer.write(datasets.encode_example(
              _jpeg(clean, 40 + n % 30, 60 - n % 20), label,
              noise.WRONG_LABEL if n == 0 else clean, source_id=f'{n}.jpg'))
    (directory / folder / 'noise.json').write_text(json.dumps(dict(
        dataset_name='own', photographs=True, num_classes=3,
        num_examples=count, class_names=['a', 'b', 'c'])))
  return directory


def _train(photos, train_dir, **settings):
  return testing.run_command(cifar_train_mentormix, *testing.to_flags(**dict(
      dict(dataset_name='own', data_dir=photos / '0.2', train_log_dir=train_dir,
           studentnet='resnet8_thin', batch_size=10, max_number_of_steps=2,
           trained_mentornet_dir=testing.MENTOR, device_id=''), **settings)))


def test_train_resume_evaluate_and_rank(photos, tmp_path):
  for steps in (2, 4):
    code, out, err = _train(photos, tmp_path / 'run', image_size=24,
                            image_recipe='ncr', max_number_of_steps=steps)
    assert code == 0, err
    assert f'trained to step {steps}' in out and '60 examples' in out
  config = config_lib.load(str(tmp_path / 'run'))
  assert (config['image_size'], config['image_recipe']) == (24, 'ncr')
  for flags in ({}, dict(image_size=32, image_recipe='inception')):
    code, out, err = testing.run_command(
        cifar_eval, '--once', *testing.to_flags(
            data_dir=photos / 'val', checkpoint_dir=tmp_path / 'run',
            eval_dir=tmp_path / f'eval{len(flags)}', batch_size=7, **flags))
    assert code == 0, err
    found = results.read(str(tmp_path / f'eval{len(flags)}' / 'results.csv'))
    assert [(r.step, r.count) for r in found] == [(0, 20), (2, 20), (4, 20)]
  code, out, err = testing.run_command(score_labels, *testing.to_flags(
      data_dir=photos / '0.2', checkpoint_dir=tmp_path / 'run',
      output_dir=tmp_path / 'scores', num_images=8))
  assert code == 0, err
  summary = json.loads((tmp_path / 'scores' / 'summary.json').read_text())
  assert summary['count'] == 60 and summary['noise_rate'] == 0.2


@pytest.mark.parametrize('settings,words', [
    (dict(image_size=30), 'does not take images of 30x30 pixels'),
    (dict(image_recipe='best'), '--image_recipe=best must be one of inception'),
    (dict(image_size=-1), '--image_size=-1 must be at least 0')])
def test_errors_are_one_line(photos, settings, words, tmp_path):
  testing.assert_one_line(_train(photos, tmp_path / 'run', **settings), 2,
                          words)


def test_small_images_have_a_size(digits, tmp_path):
  testing.assert_one_line(_train(
      photos=tmp_path, train_dir=tmp_path / 'run', dataset_name='digits',
      data_dir=digits + '/0.4', image_size=64), 2,
      '--image_size=64 is for photographs', 'have 32 pixels')


def test_an_empty_file_is_found_at_once(photos, tmp_path):
  (tmp_path / 'data').mkdir()
  for path in (photos / '0.2').iterdir():
    (tmp_path / 'data' / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'data' / 'own_train-00001-of-00002').write_bytes(b'')
  testing.assert_one_line(_train(photos, tmp_path / 'run',
                                 data_dir=tmp_path / 'data'), 2,
                          'own_train-00001-of-00002 is an empty file')
