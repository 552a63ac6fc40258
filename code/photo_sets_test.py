"""Every set of photographs: prepared, trained on for two steps, evaluated."""
import io
import os

import cifar_eval
import cifar_train_mentormix
from PIL import Image
import pytest

from mentormix import testing
from mentormix.data.photos.testing import (
    IDS, jpeg, mini_name, mini_rows, ok, prepare, put, red_rows, refused,
    val_rows, write_annotations, write_images, write_webvision)
from mentormix.evaluation import results


def _spoil(folder, names):
  """Three images: missing, damaged, and not what its name says."""
  missing, damaged, misnamed = (folder / name for name in names)
  missing.unlink()
  damaged.write_bytes(damaged.read_bytes()[:300])
  stream = io.BytesIO()
  Image.open(str(misnamed)).save(stream, 'PNG')
  misnamed.write_bytes(stream.getvalue())


def _cnwl(folder, hyphen='mini-imagenet'):
  """The flags of Controlled Noisy Web Labels; 18 images, one twice."""
  images = hyphen.replace('-', '_')
  write_annotations(folder / 'a', images, hyphen)
  write_images(folder / 'images', mini_rows() + red_rows() + val_rows())
  write_images(folder / 'images' / 'again', red_rows()[7:8])
  _spoil(folder / 'images', [f'{mini_name(0, k)}.jpg' for k in (1, 3, 4)])
  return dict(noise_levels='0.4', annotations='a', image_root='images')


def _webvision(folder):
  """Its flags; 24 images of Google, two of Flickr with names of Google."""
  web = folder / 'web'
  write_webvision(web)
  with (web / 'info' / 'train_filelist_google.txt').open('a') as lines:
    for k in range(20):
      lines.write(f'google/q0004/{k}.jpg {k}\n')
      put(web / 'google' / 'q0004' / f'{k}.jpg', jpeg(k))
  _spoil(web / 'google' / 'q0004', ['1.jpg', '2.jpg', '3.jpg'])
  return dict(image_root='web')


def _mini_webvision(folder):
  """Also with the validation images of ILSVRC12."""
  for k in range(50):
    put(folder / 'ilsvrc' / IDS[k] / f'ILSVRC2012_val_{k + 7:08d}.JPEG',
        jpeg(k))
  return dict(_webvision(folder), val_root='ilsvrc')


def _list(folder, header='', line='{path} {label}\n'):
  """A list of 20 images in two folders, where they have the same names."""
  for name, count in (('train', 20), ('val', 8)):
    rows = [(f'{"ab"[k % 2]}/{name}{k // 2}.jpg', k % 3) for k in range(count)]
    put(folder / f'{name}.txt', header + ''.join(
        line.format(path=path, label=label, clean=0) for path, label in rows))
    for path, label in rows:
      put(folder / 'images' / path, jpeg(label))
  _spoil(folder / 'images', [f'a/train{k}.jpg' for k in range(3)])
  return dict(image_list='train.txt', val_list='val.txt', image_root='images')


def _train(folder, split, **settings):
  return testing.run_command(cifar_train_mentormix, *testing.to_flags(**dict(
      dict(data_dir=folder / 'out' / split, train_log_dir=folder / 'run',
           studentnet='resnet8_thin', image_size=16, batch_size=6,
           max_number_of_steps=2, trained_mentornet_dir=testing.MENTOR,
           device_id='', num_readers=1, num_preprocessing_threads=1),
      **settings)))


def _evaluate(folder, split, **settings):
  return testing.run_command(cifar_eval, '--once', *testing.to_flags(**dict(
      dict(data_dir=folder / 'out' / split, checkpoint_dir=folder / 'run',
           eval_dir=folder / f'eval_{split}', device_id=''), **settings)))


def _slow(*row):
  return pytest.param(*row, marks=pytest.mark.slow)


@pytest.mark.parametrize('name,make,num_train,num_classes,tests', [
    ('mini_imagenet_red', _cnwl, 16, 100, {'val': 12}),
    _slow('mini_imagenet_blue', _cnwl, 16, 100, {'val': 12}),
    _slow('stanford_cars_red', lambda folder: _cnwl(folder, 'stanford-cars'),
          16, 196, {'val': 12}),
    _slow('stanford_cars_blue', lambda folder: _cnwl(folder, 'stanford-cars'),
          16, 196, {'val': 12}),
    ('mini_webvision', _mini_webvision, 21, 50,
     {'val': 50, 'val_ilsvrc12': 50}),
    _slow('webvision', _webvision, 24, 1000, {'val': 60}),
    _slow('spaces', _list, 18, 3, {'val': 8}),
    _slow('tabs', lambda folder: _list(
        folder, 'file\tnoisy\n', '{path}\t{label}\n'), 18, 3, {'val': 8}),
    ('csv', lambda folder: _list(
        folder, 'path,label,clean_label\n', '{path},{label},{clean}\n'), 18, 3,
     {'val': 8})])
def test_prepared_trained_evaluated(tmp_path, name, make, num_train,
                                    num_classes, tests):
  out = ok(prepare(tmp_path, dataset_name=name, **make(tmp_path)))
  assert f'{num_train} photographs' in out
  assert '1 missing (missing.csv) and 1 damaged (damaged.csv)' in out
  assert '1 encoded again' in out
  (train_dir,) = (path.name for path in (tmp_path / 'out').iterdir()
                  if not path.name.startswith('val'))
  out = ok(_train(tmp_path, train_dir, dataset_name=name))
  assert f'{num_train} examples' in out and 'trained to step 2' in out
  weights = testing.weights(tmp_path / 'run')
  assert weights['ResNet8/logit/biases'].shape == (num_classes,)
  assert {path.name for path in (tmp_path / 'out').iterdir()} == {
      train_dir, *tests}
  for test_dir, count in tests.items():
    out = ok(_evaluate(tmp_path, test_dir))
    assert 'last ' in out and 'at step 2, peak ' in out
    assert [(row.step, row.count) for row in results.read(
        str(tmp_path / f'eval_{test_dir}' / 'results.csv'))] == [
            (0, count), (2, count)]


@pytest.fixture(name='run', scope='module')
def fixture_run(tmp_path_factory):
  """A list of three classes in out, and a run of it in run."""
  folder = tmp_path_factory.mktemp('photos')
  ok(prepare(folder, dataset_name='own', **_list(folder)))
  ok(_train(folder, '0', dataset_name='own', method='cross_entropy'))
  return folder


def test_evaluation_needs_the_classes_of_the_run(run, tmp_path):
  for name in ('own', 'other'):
    put(tmp_path / 'train.txt', 'a/val0.jpg 0\nb/val0.jpg 4\n')
    put(tmp_path / 'val.txt', 'a/val1.jpg 0\n')
    ok(prepare(tmp_path, dataset_name=name, image_list='train.txt',
               val_list='val.txt', image_root=run / 'images', output_dir=name))
  refused(_evaluate(run, '', data_dir=tmp_path / 'other' / 'val'),
          '--dataset_name=own is unknown here: --data_dir=.* holds other')
  refused(_evaluate(run, '', data_dir=tmp_path / 'own' / 'val'),
          r'logit/DW.* is \[64, 3\] there, \[64, 5\] here')


def test_damaged_records_are_said_to_be_the_data(run, tmp_path):
  (tmp_path / 'val').mkdir()
  for path in (run / 'out' / 'val').iterdir():
    data = path.read_bytes()
    put(tmp_path / 'val' / path.name, data[:-9] if '-of-' in path.name
        else data)
  testing.assert_one_line(
      _evaluate(run, '', data_dir=tmp_path / 'val', eval_dir=tmp_path), 1,
      'truncated record', 'check the files in --data_dir')


@pytest.mark.parametrize('settings,words', [
    (dict(data_dir='{run}/out'), 'out has no noise.json; name the directory'),
    (dict(data_dir='{run}/out/val'), 'has no file own_train-'),
    (dict(dataset_name='webvision'), 'webvision is unknown here: .*holds own'),
    (dict(image_size=18), 'does not take images of 18x18 pixels.* of 4'),
    (dict(studentnet='inception_resnet_v2'), 'images of 16x16.*at least 107'),
    (dict(checkpoint_path='{run}/out/0'), 'is a directory, and it is not clear'),
    (dict(checkpoint_path='{run}/train.txt'), 'train.txt cannot be read'),
    (dict(checkpoint_path='{run}/run', studentnet='resnet14_thin'),
     'is of another net than --studentnet=resnet14_thin')])
def test_bad_input_of_training_is_one_line(run, tmp_path, settings, words):
  settings = {name: value.format(run=run) if isinstance(value, str) else value
              for name, value in settings.items()}
  refused(_train(run, '0', **dict(dict(
      dataset_name='own', train_log_dir=tmp_path / 'new',
      method='cross_entropy'), **settings)), words)
  assert not os.path.exists(str(tmp_path / 'new' / 'checkpoint'))
