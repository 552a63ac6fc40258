"""Tests of what is prepared, from the images to the records."""
import hashlib
import json
import os
import pathlib
import re

import numpy as np
from PIL import Image
import pytest

from mentormix import files
from mentormix.data import cifar_archive
from mentormix.data import cifar_archive_test
from mentormix.data import datasets
from mentormix.data import digits as digits_lib
from mentormix.data import png
from mentormix.data import preparation
from mentormix.data import preparation_settings
from mentormix.messages import UserError
from mentormix.runtime import tf


def settings(tmp_path, **changes):
  """Settings for a small archive of 200 + 40 images, made if need be."""
  archive = str(tmp_path / 'a.tar.gz')
  if not os.path.exists(archive):
    cifar_archive_test.write_cifar_archive(archive)
  values = preparation_settings.Settings(
      dataset_name='cifar10', archive=archive, output_dir=str(tmp_path / 'out'),
      noise_levels=(0.4,), num_shards=3)
  return values._replace(**changes)


def contents(directory):
  """{path relative to `directory`: bytes} of all files below it."""
  directory = pathlib.Path(directory)
  return {str(path.relative_to(directory)): path.read_bytes()
          for path in directory.rglob('*') if path.is_file()}


def facts(tmp_path, level='0.4'):
  return json.loads((tmp_path / 'out' / level / 'noise.json').read_text())


def image_folder(directory, num_classes=2, count=20, size=40):
  """Writes images of a colour per class, 10 per class for val."""
  for split, images in (('train', count), ('val', 10)):
    for k in range(num_classes):
      folder = directory / split / (f'class {k}')
      folder.mkdir(parents=True)
      for i in range(images):
        pixels = np.full([size, size + i, 3], [50 * k, i, 99], np.uint8)
        Image.fromarray(pixels).save(str(folder / (f'{i:03d}.png')))
  return str(directory)


def fail_after(monkeypatch, count, fail):
  """Calls `fail` when record number `count` is about to be encoded."""
  original, calls = png.encode_png, []

  def encode_png(image):
    calls.append(None)
    if len(calls) == count:
      fail()
    return original(image)

  monkeypatch.setattr(png, 'encode_png', encode_png)


def records(dataset_name, split, directory):
  """The tf.Examples of a split, in the order on disk."""
  dataset = datasets.get(dataset_name, str(directory))
  paths = datasets.find_files(dataset, split, str(directory))
  return [tf.train.Example.FromString(record).features.feature
          for path in paths for record in tf.python_io.tf_record_iterator(path)]


def column(examples, key):
  return np.array([x[key].int64_list.value[0] for x in examples])


def source_ids(examples):
  return [x[datasets.SOURCE_ID].bytes_list.value[0].decode('utf-8')
          for x in examples]


def decode(examples):
  """The images, uint8 [N, 32, 32, 3]."""
  with tf.Graph().as_default(), tf.Session() as session:
    encoded = tf.placeholder(tf.string, [None])
    images = tf.map_fn(tf.image.decode_png, encoded, dtype=tf.uint8)
    return session.run(images, {encoded: [
        x['image/encoded'].bytes_list.value[0] for x in examples]})


# What is written.


@pytest.mark.parametrize('dataset_name', ['cifar10', 'cifar100', 'digits'])
def test_read_back(tmp_path, dataset_name, capsys):
  archive, clean = None, digits_lib.digits()
  if dataset_name != 'digits':
    archive = str(tmp_path / 'a.tar.gz')
    clean = cifar_archive_test.write_cifar_archive(archive, dataset_name, 100)
  preparation.prepare(settings(
      tmp_path, dataset_name=dataset_name, archive=archive, seed=5))
  count = len(clean.train_labels)

  level = tmp_path / 'out' / '0.4'
  train = records(dataset_name, 'train', level)
  order = preparation.record_order(count, 5)
  np.testing.assert_array_equal(decode(train), clean.train_images[order])
  clean_labels = column(train, datasets.CLEAN_LABEL)
  np.testing.assert_array_equal(clean_labels, clean.train_labels[order])
  assert source_ids(train) == [str(i) for i in order]
  given = column(train, datasets.LABEL)
  by_source = given[np.argsort(order)].tolist()
  assert json.loads((level / 'labels.json').read_text()) == by_source
  assert (level / 'labels.csv').read_text().splitlines()[1:] == [
      f'{i},{by_source[i]},{clean.train_labels[i]},{i}' for i in range(count)]
  changed = given != clean_labels
  assert changed.sum() == round(0.4 * count)
  # Spread over the files, although records and noise have one seed.
  for third in np.array_split(changed, 3):
    assert 0.3 < third.mean() < 0.5

  test = records(dataset_name, 'test', tmp_path / 'out' / 'val')
  np.testing.assert_array_equal(decode(test), clean.test_images)
  assert source_ids(test) == [str(i) for i in range(len(clean.test_labels))]
  for key in (datasets.LABEL, datasets.CLEAN_LABEL):
    np.testing.assert_array_equal(column(test, key), clean.test_labels)
  for split, labels in ((train, clean_labels), (test, clean.test_labels)):
    if dataset_name == 'cifar100':
      np.testing.assert_array_equal(column(split, datasets.FINE_LABEL), labels)
    else:
      assert datasets.FINE_LABEL not in split[0]
  assert (f'{level}: {count} examples, symmetric_others noise, 0.4 asked, 0.'
          in capsys.readouterr().out.splitlines()[-2])


def test_noise_file_says_what_was_done(tmp_path):
  archive = str(tmp_path / 'a.tar.gz')
  clean = cifar_archive_test.write_cifar_archive(archive, 'cifar100', 100)
  preparation.prepare(settings(
      tmp_path, dataset_name='cifar100', archive=archive, seed=2,
      noise_type='asymmetric'))
  found = facts(tmp_path)
  train = records('cifar100', 'train', tmp_path / 'out' / '0.4')
  given = column(train, datasets.LABEL)
  assert found.pop('sha256') == {
      name: hashlib.sha256(data).hexdigest()
      for name, data in contents(tmp_path / 'out' / '0.4').items()
      if name != 'noise.json'}
  assert 'mapped' in found.pop('definition')
  assert found == {
      'archive': 'a.tar.gz', 'archive_md5': files.md5_of(archive),
      'class_names': list(clean.class_names), 'dataset_name': 'cifar100',
      'format_version': 2, 'image_size': 32, 'noise_type': 'asymmetric',
      'num_changed': 200, 'num_classes': 100, 'num_examples': 500,
      'num_shards': 3, 'num_train': None,
      'rate_asked': 0.4, 'rate_realised': 0.4, 'seed': 2, 'split': 'train',
      'clean_label_counts': [5] * 100,
      'given_label_counts': np.bincount(given, minlength=100).tolist(),
      # The archive has class k in superclass k % 20.
      'transition': [(k + 20) % 100 for k in range(100)]}
  val = facts(tmp_path, 'val')
  assert (val['split'], val['definition']) == ('test', 'clean')
  assert val['rate_realised'] == 0 and val['noise_type'] is None


def test_levels_share_order_and_test_set(tmp_path):
  preparation.prepare(settings(tmp_path, noise_levels=(0.0, 0.25, 1.0)))
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['0', '0.25', '1', 'val']
  clean = [column(records('cifar10', 'train', tmp_path / 'out' / level),
                  datasets.CLEAN_LABEL) for level in ('0', '0.25', '1')]
  assert np.array_equal(clean[0], clean[1])
  assert np.array_equal(clean[0], clean[2])


def test_same_seed_same_bytes_on_every_runtime(tmp_path):
  digits = settings(tmp_path, dataset_name='digits', archive=None)
  preparation.prepare(digits)
  digest = hashlib.sha256()
  for name, data in sorted(contents(tmp_path / 'out').items()):
    digest.update(name.encode('ascii') + b'\0' + data)
  assert digest.hexdigest() == (
      '4cb5ce7be2a6f32c12b5ec48ff88417a632438379bd9aad848b1db7098d286c1')
  preparation.prepare(digits._replace(
      seed=1, output_dir=str(tmp_path / 'other')))
  first, other = contents(tmp_path / 'out'), contents(tmp_path / 'other')
  name = os.path.join('0.4', 'digits_train-00000-of-00003')
  assert first[name] != other[name]
  name = os.path.join('val', 'digits_test-00000-of-00003')
  assert first[name] == other[name]


# A part of the training images.


@pytest.mark.parametrize('change, rows', [
    ({'num_train': 50}, range(50)), ({'skip_train': 150}, range(150, 200)),
    ({'num_train': 20, 'skip_train': 10}, range(10, 30))])
def test_a_part_of_the_training_images(tmp_path, change, rows):
  preparation.prepare(settings(tmp_path, **change))
  clean = cifar_archive.read(str(tmp_path / 'a.tar.gz'), 'cifar10')
  train = records('cifar10', 'train', tmp_path / 'out' / '0.4')
  order = [int(i) for i in source_ids(train)]
  assert sorted(order) == list(rows)
  np.testing.assert_array_equal(decode(train), clean.train_images[order])
  found, val = facts(tmp_path), facts(tmp_path, 'val')
  assert (found['num_examples'], found['num_changed']) == (
      len(rows), 0.4 * len(rows))
  assert (found['num_train'], found.get('skip_train')) == (
      change.get('num_train'), change.get('skip_train'))
  assert (val['num_train'], val['num_examples']) == (None, 40)
  assert 'skip_train' not in val


# Labels of a file.


@pytest.fixture(name='labelled')
def fixture_labelled(tmp_path, monkeypatch):
  """Settings with 30% wrong labels in x.npz; the labels; all in tmp_path."""
  monkeypatch.chdir(tmp_path)
  values = settings(tmp_path, noise_levels=None, noise_file='x.npz',
                    noise_key='worse')
  clean = cifar_archive.read('a.tar.gz', 'cifar10').train_labels
  worse = np.where(np.arange(200) % 10 < 3, (clean + 1) % 10, clean)
  np.savez('x.npz', clean=clean, worse_label=worse)
  return values, clean, worse


def written_labels(directory):
  with open(os.path.join(directory, 'labels.json')) as stream:
    return json.load(stream)


def test_labels_of_a_file(tmp_path, capsys, labelled):
  values, clean, worse = labelled
  preparation.prepare(values)
  assert 'labels of x.npz, 0.3000 realised' in capsys.readouterr().out
  assert sorted(os.listdir('out')) == ['val', 'worse']
  train = records('cifar10', 'train', 'out/worse')
  order = [int(i) for i in source_ids(train)]
  np.testing.assert_array_equal(column(train, datasets.LABEL), worse[order])
  np.testing.assert_array_equal(column(train, datasets.CLEAN_LABEL),
                                clean[order])
  found = facts(tmp_path, 'worse')
  assert found['definition'] == 'the labels are those of a file'
  assert [found[key] for key in (
      'noise_type', 'rate_asked', 'rate_realised', 'noise_file', 'noise_key',
      'noise_file_md5')] == [
          'file', None, 0.3, 'x.npz', 'worse', files.md5_of('x.npz')]

  preparation.prepare(values)
  assert capsys.readouterr().out.count('kept') == 2
  worse[0] = clean[0]
  np.savez('x.npz', clean=clean, worse_label=worse)
  with pytest.raises(UserError, match='noise_file_md5.*--overwrite'):
    preparation.prepare(values)
  # What was written reads back, also in part; a part is not enough to read.
  os.rename('out/worse/labels.csv', 'again.csv')
  again = values._replace(noise_file='again.csv', noise_key=None, num_train=50,
                          output_dir='part')
  preparation.prepare(again)
  assert written_labels('part/again') == written_labels('out/worse')[:50]
  with pytest.raises(UserError, match='50 labels; there are 200'):
    preparation.prepare(again._replace(
        noise_file='part/again/labels.json', output_dir='other'))
  assert not os.path.exists('other')


def test_labels_in_another_order_are_refused_before_writing(labelled):
  values, clean, worse = labelled
  np.savez('x.npz', clean=clean[::-1], worse=worse[::-1])
  with pytest.raises(UserError, match='pass --noise_index'):
    preparation.prepare(values)
  assert not os.path.exists('out')
  np.save('index.npy', np.arange(200)[::-1])
  preparation.prepare(values._replace(noise_index='index.npy'))
  assert written_labels('out/worse') == worse.tolist()


# Custom images.


def custom(tmp_path, **changes):
  """Settings for custom images."""
  values = dict(dataset_name='own', archive=None, noise_levels=None,
                image_dir=str(tmp_path / 'images'))
  values.update(changes)
  return settings(tmp_path, **values)


def test_custom_images(tmp_path, capsys):
  image_folder(tmp_path / 'images')
  preparation.prepare(custom(tmp_path, image_size=24))
  assert '0: 40 examples, labels as in the folders' in capsys.readouterr().out
  train = records('own', 'train', tmp_path / 'out' / '0')
  assert datasets.CLEAN_LABEL not in train[0]
  images = decode(train)
  assert images.shape == (40, 24, 24, 3)
  labels = column(train, datasets.LABEL)
  for image, label, name in zip(images, labels, source_ids(train)):
    match = re.match(r'train/class (\d)/(\d+)\.png$', name)
    assert label == int(match.group(1))
    assert image[0, 0].tolist() == [50 * label, int(match.group(2)), 99]
  lines = (tmp_path / 'out' / '0' / 'labels.csv').read_text().splitlines()
  assert lines[1] == '0,0,,train/class 0/000.png'
  found = facts(tmp_path, '0')
  assert [found[key] for key in (
      'rate_asked', 'rate_realised', 'num_changed', 'clean_label_counts',
      'num_classes', 'image_size', 'class_names', 'noise_type')] == [
          None, None, None, None, 2, 24, ['class 0', 'class 1'], 'folders']
  preparation.prepare(custom(tmp_path, image_size=24))
  assert capsys.readouterr().out.count('kept') == 2
  with pytest.raises(UserError, match='image_size 24, not 32'):
    preparation.prepare(custom(tmp_path))
  (tmp_path / 'images' / 'val' / 'class 1' / '009.png').unlink()
  with pytest.raises(UserError, match='archive_md5'):
    preparation.prepare(custom(tmp_path, image_size=24))


def test_noise_on_custom_images(tmp_path):
  """A part takes every class alike; the folders' labels count as clean."""
  image_folder(tmp_path / 'images', num_classes=3)
  preparation.prepare(custom(
      tmp_path, noise_type='symmetric_others', num_train=9,
      noise_levels=(0.0, 0.34)))
  train = records('own', 'train', tmp_path / 'out' / '0.34')
  assert sorted(source_ids(train)) == [
      f'train/class {k}/00{i}.png' for k in range(3) for i in range(3)]
  clean = column(train, datasets.CLEAN_LABEL)
  assert sorted(clean) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert np.sum(clean != column(train, datasets.LABEL)) == 3
  assert facts(tmp_path, '0')['rate_realised'] == 0
  with pytest.raises(UserError, match='asymmetric is not defined'):
    preparation.prepare(custom(tmp_path, noise_type='asymmetric',
                               noise_levels=(0.1,)))


def test_unreadable_images_are_found_before_writing(tmp_path):
  image_folder(tmp_path / 'images')
  (tmp_path / 'images' / 'val' / 'class 1' / '005.png').write_bytes(b'x')
  with pytest.raises(UserError, match='val/class 1/005.png cannot be read'):
    preparation.prepare(custom(tmp_path))
  assert not (tmp_path / 'out').exists()
