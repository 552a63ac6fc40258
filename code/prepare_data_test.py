"""Tests of making data sets, from the command line to the pixels."""
import hashlib
import io
import json
import os
import re
import shutil
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import cifar_eval
import cifar_train_mentormix
import prepare_data
from mentormix.data import cifar_archive
from mentormix.data import datasets
from mentormix.data import digits as digits_lib
from mentormix.data import download as download_lib
from mentormix.data import noise
from mentormix.data import png as png_lib
from mentormix.data import preparation
from mentormix import files
from mentormix.messages import RunError
from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix import testing


def settings(tmp_path, **changes):
  """Settings for a small archive of 200 + 40 images, made if need be."""
  archive = str(tmp_path / 'a.tar.gz')
  if not os.path.exists(archive):
    testing.write_cifar_archive(archive)
  values = preparation.Settings(
      dataset_name='cifar10', archive=archive, output_dir=str(tmp_path / 'out'),
      noise_levels=(0.4,), noise_type='symmetric_others', num_shards=3)
  return values._replace(**changes)


def contents(directory):
  """{path relative to `directory`: bytes} of all files below it."""
  found = {}
  for folder, _, names in os.walk(str(directory)):
    for name in names:
      path = os.path.join(folder, name)
      with open(path, 'rb') as stream:
        found[os.path.relpath(path, str(directory))] = stream.read()
  return found


def facts(tmp_path, level='0.4'):
  return json.loads((tmp_path / 'out' / level / 'noise.json').read_text())


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
    clean = testing.write_cifar_archive(archive, dataset_name, 100)
  preparation.prepare(settings(tmp_path, dataset_name=dataset_name,
                                archive=archive, seed=5))
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
  clean = testing.write_cifar_archive(archive, 'cifar100', 100)
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


@pytest.mark.parametrize('size', [32, 148, 256, 512])
def test_png_is_stored_and_valid(size):
  image = np.random.RandomState(0).randint(
      0, 256, size=[size, size, 3]).astype(np.uint8)
  png = png_lib.encode_png(image)
  np.testing.assert_array_equal(Image.open(io.BytesIO(png)), image)
  # Filter 0 in every row, and nothing compressed.
  length, = struct.unpack('>I', png[33:37])
  rows = np.frombuffer(zlib.decompress(png[41:41 + length]), np.uint8)
  assert not rows.reshape(size, -1)[:, 0].any()
  blocks = -(-size * (1 + 3 * size) // 65535)
  assert len(png) == size * (1 + 3 * size) + 5 * blocks + 63


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
  values = settings(tmp_path, noise_levels=(None,), noise_type=noise.FILE,
                    noise_file='x.npz', noise_key='worse')
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


def image_folder(directory, num_classes=2, count=20, size=40):
  """Writes images of a colour per class, 10 per class for val."""
  for split, images in (('train', count), ('val', 10)):
    for k in range(num_classes):
      folder = directory / split / ('class %d' % k)
      folder.mkdir(parents=True)
      for i in range(images):
        pixels = np.full([size, size + i, 3], [50 * k, i, 99], np.uint8)
        Image.fromarray(pixels).save(str(folder / ('%03d.png' % i)))
  return str(directory)


def custom(tmp_path, **changes):
  """Settings for custom images."""
  values = dict(dataset_name='own', archive=None, noise_levels=(0.0,),
                noise_type=noise.FOLDERS, image_dir=str(tmp_path / 'images'))
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
      'train/class %d/00%d.png' % (k, i) for k in range(3) for i in range(3)]
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


def test_custom_images_are_trained_and_evaluated_on(tmp_path):
  image_folder(tmp_path / 'images')
  preparation.prepare(custom(tmp_path, image_size=24))
  for module, flags in (
      (cifar_train_mentormix, dict(
          studentnet='resnet8_thin', data_dir='out/0', train_log_dir='run',
          trained_mentornet_dir='threshold', max_number_of_steps=2)),
      (cifar_eval, dict(
          data_dir='out/val', checkpoint_dir='run', eval_dir='eval',
          once=True))):
    code, _, err = testing.run_command(module, *testing.to_flags(
        dataset_name='own', batch_size=8, **flags), cwd=tmp_path)
    assert code == 0, err
  results = tmp_path / 'eval' / 'results.csv'
  header, row = results.read_text().splitlines()[:2]
  found = dict(zip(header.split(','), row.split(',')))
  assert found['count'] == '20'
  assert float(found['top5']) == 1  # There are no more than five.


# Directories that exist already.


def test_finished_directories_are_kept(tmp_path, capsys, monkeypatch):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(preparation, '_read', None)  # The images are not even read.
    preparation.prepare(settings(tmp_path))
  assert contents(tmp_path) == before
  preparation.prepare(settings(tmp_path, noise_levels=(0.1, 0.4)))
  assert capsys.readouterr().out.count('kept') == 4
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['0.1', '0.4', 'val']


@pytest.mark.parametrize('change', [
    {'seed': 1}, {'noise_type': 'symmetric'}, {'num_shards': 2},
    {'num_train': 50}])
def test_other_settings_are_refused_before_writing(tmp_path, change):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)
  wanted = settings(tmp_path, noise_levels=(0.1, 0.4), **change)
  with pytest.raises(UserError, match='--overwrite') as caught:
    preparation.prepare(wanted)
  (name, value), = change.items()
  assert (f'{name} {getattr(settings(tmp_path), name)}, not {value}'
          in str(caught.value))
  assert contents(tmp_path) == before
  preparation.prepare(wanted._replace(overwrite=True))
  assert facts(tmp_path)[name] == value
  assert sorted(os.listdir(str(tmp_path / 'out'))) == ['0.1', '0.4', 'val']


def test_other_archive_is_refused(tmp_path):
  values = settings(tmp_path)
  preparation.prepare(values)
  testing.write_cifar_archive(values.archive, seed=1)
  with pytest.raises(UserError, match='archive_md5.*--overwrite'):
    preparation.prepare(values)


@pytest.mark.parametrize('damage', ['change', 'remove', 'add', 'no json',
                                    'odd json', 'deep json'])
def test_damaged_directories_are_refused(tmp_path, damage):
  preparation.prepare(settings(tmp_path))
  level = tmp_path / 'out' / '0.4'
  shard, note = level / 'cifar10_train-00001-of-00003', level / 'noise.json'
  if damage == 'change':
    shard.write_bytes(shard.read_bytes()[:-1])
  elif damage == 'remove':
    shard.unlink()
  elif damage == 'add':
    (level / 'cifar10_train-00003-of-00004').write_bytes(b'')
  elif damage == 'no json':
    note.unlink()
  else:
    note.write_text('[]' if damage == 'odd json' else '[' * 100000)
  with pytest.raises(UserError, match='--overwrite'):
    preparation.prepare(settings(tmp_path))
  preparation.prepare(settings(tmp_path, overwrite=True))
  assert len(facts(tmp_path)['sha256']) == 5


def test_other_files_are_never_replaced(tmp_path):
  level = tmp_path / 'out' / '0.4'
  level.mkdir(parents=True)
  (level / 'thesis.tex').write_text('x')
  for overwrite in (False, True):
    with pytest.raises(UserError, match='thesis.tex.*--output_dir'):
      preparation.prepare(settings(tmp_path, overwrite=overwrite))
  (level / 'thesis.tex').unlink()
  preparation.prepare(settings(tmp_path))  # An empty one is no obstacle.
  assert facts(tmp_path)


def test_file_or_link_in_the_way(tmp_path):
  (tmp_path / 'out').mkdir()
  level = tmp_path / 'out' / '0.4'
  for make in (level.touch, lambda: level.symlink_to(tmp_path / 'nowhere')):
    make()
    with pytest.raises(UserError, match='not a directory'):
      preparation.prepare(settings(tmp_path, overwrite=True))
    level.unlink()


# Interruptions.


def fail_after(monkeypatch, count, fail):
  """Calls `fail` when record number `count` is about to be encoded."""
  original, calls = png_lib.encode_png, []

  def encode_png(image):
    calls.append(None)
    if len(calls) == count:
      fail()
    return original(image)

  monkeypatch.setattr(png_lib, 'encode_png', encode_png)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def number(request):
  """A signal that is not ignored, even where the tests run under nohup."""
  previous = signal.signal(request.param, signal.SIG_DFL)
  yield request.param
  signal.signal(request.param, previous)


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, number, capsys):
  handler = signal.getsignal(number)
  fail_after(monkeypatch, 100, lambda: os.kill(os.getpid(), number))
  with pytest.raises(SystemExit) as caught:
    with prepare_data._stopped_by_signals():  # pylint: disable=protected-access
      preparation.prepare(settings(tmp_path))
  assert caught.value.code == 128 + number
  assert 'Stopped by signal %d' % number in capsys.readouterr().err
  assert os.listdir(str(tmp_path / 'out')) == ['val']  # That was finished.
  assert signal.getsignal(number) is handler
  preparation.prepare(settings(tmp_path))  # Continues where it stopped.
  assert len(facts(tmp_path)['sha256']) == 5


def test_ignored_signals_stay_ignored(tmp_path, monkeypatch):
  previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does.
  try:
    fail_after(monkeypatch, 100, lambda: os.kill(os.getpid(), signal.SIGHUP))
    with prepare_data._stopped_by_signals():  # pylint: disable=protected-access
      preparation.prepare(settings(tmp_path))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, previous)
  assert facts(tmp_path)


def test_failed_overwrite_keeps_the_old(tmp_path, monkeypatch):
  preparation.prepare(settings(tmp_path))
  before = contents(tmp_path)

  def disk_full():
    raise OSError(28, 'No space left on device')

  fail_after(monkeypatch, 10, disk_full)
  with pytest.raises(RunError, match='No space left'):
    preparation.prepare(settings(tmp_path, seed=1, overwrite=True))
  assert contents(tmp_path) == before


# The command.


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
  testing.write_cifar_archive(str(directory / 'ten.tar.gz'), 'cifar10')
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
    (DIGITS + ['--noise_levels='], 'noise_levels.*write'),
    (DIGITS + ['--noise_levels=0.2,0.20'], '0.2 is there twice'),
    (DIGITS + ['--noise_type=pair'], 'noise_type.*symmetric_others'),
    (DIGITS + ['--num_shards=0'], 'num_shards'),
    (DIGITS + ['--num_shards=401'], 'num_shards.*400'),
    (DIGITS + ['--num_train=1398'], 'num_train=1398.*1397'),
    (DIGITS + ['--num_train=5'], 'num_shards=10.*5 images'),
    (DIGITS + ['--num_train=0'], 'num_train'),
    (DIGITS + ['--skip_train=1397'], 'skip_train=1397.*none.*1397'),
    (DIGITS + ['--skip_train=1300', '--num_train=98'],
     'num_train=98.*97.*after --skip_train'),
    (DIGITS + ['--seed=-1'], 'seed'),
    (DIGITS + ['--archive=ten.tar.gz'], 'embedded.*--archive'),
    (DIGITS + ['--output_dir=ten.tar.gz/x'], 'output_dir.*not a directory'),
    (DIGITS + ['--output_dir=/dev/null/x'], 'output_dir.*/dev/null'),
    (CIFAR10 + ['--archive='], '--archive is empty'),
    (CIFAR10 + ['--archive=none.tar.gz'], 'none.tar.gz does not exist'),
    (CIFAR10 + ['--archive=half.tar.gz'], 'half.tar.gz is truncated'),
    (CIFAR10 + ['--archive=ftp://x/y.tar.gz'], 'http'),
    (CIFAR10 + ['--archive=http://127.0.0.1:1/'], 'http'),
    (CIFAR10 + ['--archive=http://[bad'], 'http://.bad is neither'),
    (TEN + ['--md5=123'], 'md5=123'),
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
    (DIGITS + ['--image_dir=images'], 'digits is a known data set'),
    (['--image_dir=images'], 'dataset_name is missing'),
    (['--dataset_name=own'], 'own is unknown.*--image_dir'),
    (['--dataset_name=a/b', '--image_dir=images'], 'letters'),
    (OWN + ['--archive=ten.tar.gz'], 'archive and --image_dir'),
    (OWN + ['--md5=' + '0' * 32], 'md5 and --image_dir'),
    (OWN + ['--image_size=30'], '30 is not a multiple of 4'),
    (OWN + ['--image_size=1024'], 'image_size'),
    (OWN + ['--noise_type=symmetric'], 'noise_type=symmetric.*--noise_levels'),
    (OWN + ['--num_shards=21'], 'num_shards=21.*20 images'),
    (['--dataset_name=own', '--image_dir=folder'], 'has no folder train'),
])
def test_bad_input_is_one_line(inputs, arguments, words):
  before = sorted(contents(inputs))
  code, _, err = testing.run_command(prepare_data, *arguments, cwd=inputs)
  assert code == 2, err
  assert re.search(words, err), err
  assert ' prepare_data.py: error: ' in err and err.count('\n') == 1
  assert sorted(contents(inputs)) == before
  assert not (inputs / 'data').exists()


def test_unofficial_archive_is_noted(inputs, tmp_path, capsys):
  archive = str(inputs / 'ten.tar.gz')
  values = settings(tmp_path, archive=archive)
  preparation.prepare(values)
  assert 'is not the official archive' in capsys.readouterr().out
  preparation.prepare(values._replace(md5=files.md5_of(archive)))
  assert 'Note' not in capsys.readouterr().out


def test_download(tmp_path, monkeypatch, inputs, capsys):
  """The official address by default; its checksum unless told otherwise."""
  fetched = []

  def download(url, path, md5):
    fetched.append((url, path, md5))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(str(inputs / 'ten.tar.gz'), path)

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(download_lib, 'download', download)
  official = cifar_archive.OFFICIAL['cifar10']._replace(
      md5=files.md5_of(str(inputs / 'ten.tar.gz')))
  monkeypatch.setitem(cifar_archive.OFFICIAL, 'cifar10', official)
  values = settings(tmp_path, archive=None)
  target = os.path.join('data', 'cifar-10-python.tar.gz')
  preparation.prepare(values)
  assert fetched == [(official.url, target, official.md5)]

  preparation.prepare(values)  # Everything is there: nothing is needed.
  assert len(fetched) == 1

  # An address elsewhere: the same file unless --md5 says otherwise.
  values = values._replace(archive='http://mirror/x/cifar-10-python.tar.gz',
                           overwrite=True)
  preparation.prepare(values)
  assert len(fetched) == 1 and 'Using ' + target in capsys.readouterr().out
  os.remove(target)
  preparation.prepare(values)
  assert fetched[1:] == [(values.archive, target, official.md5)]
  with pytest.raises(UserError, match='delete it.*--archive=' + target):
    preparation.prepare(values._replace(md5='0' * 32))
