"""Tests of WebVision and ILSVRC12's validation images in their layouts."""
import sys

import pytest

from mentormix.data import datasets
from mentormix.data.photos import ilsvrc12
from mentormix.data.photos import webvision
from mentormix.data.photos.testing import (
    facts, IDS, jpeg, ok, prepare, put, records, refused, write_webvision)
from mentormix.messages import UserError

MINI = dict(dataset_name='mini_webvision', image_root='web')
NUMBERS = range(1, 13)  # Of validation images.


def class_of(number):
  """The id of the class of a validation image: image 6 is of class 6."""
  known = {1: 'n01751748', 2: 'n09193705', 3: 'n02105855', 4: 'n04263257',
           5: 'n03125729'}
  return known.get(number, IDS[number])


def val_name(number):
  return f'ILSVRC2012_val_{number:08d}.JPEG'


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  write_webvision(tmp_path / 'web')
  return tmp_path


def labels(directory):
  return {name: record[datasets.LABEL]
          for name, record in records(directory).items()}


def test_mini_is_the_first_classes_of_google(folder):
  out = ok(prepare(folder, **MINI))
  assert ('3 training images are listed for the first 50 classes of Google, '
          'not the 65944 that others count') in out
  assert labels(folder / 'out' / '0') == {
      'google/q0001/a.jpg': 0, 'google/q0001/b.jpg': 49,
      'google/q0002/a.jpg': 1}
  assert labels(folder / 'out' / 'val') == {
      f'val{k:06d}.jpg': k - 1 for k in range(1, 51)}
  found = facts(folder / 'out' / '0')
  assert found['num_classes'] == 50 and found['wnids'] == IDS[:50]
  assert found['class_names'][3] == 'thing 3, something'
  assert found['rate_asked'] is found['rate_realised'] is None
  assert datasets.CLEAN_LABEL not in records(folder / 'out' / '0')[
      'google/q0001/a.jpg']


@pytest.mark.parametrize('layout', [
    'original', 'resized', 'resized_twice', 'roots'])
def test_google_and_flickr_stay_apart(folder, layout):
  """Both have a q0001/a.jpg; labels count from 0, as in the lists."""
  web, flags = folder / 'web', dict(MINI, dataset_name='webvision')
  if layout != 'original':
    for site in ('google', 'flickr'):
      put(web / f'{site}_resized_256' / 'x')
      (web / site).rename(web / f'{site}_resized_256' / (
          site if layout == 'resized_twice' else 'moved'))
      if layout != 'resized_twice':
        for query in (web / f'{site}_resized_256' / 'moved').iterdir():
          query.rename(web / f'{site}_resized_256' / query.name)
  if layout == 'roots':
    flags.update(annotations='web/info', image_root=(
        'web/google_resized_256,web/flickr_resized_256,web'))
  ok(prepare(folder, **flags))
  found = records(folder / 'out' / '0')
  assert found['google/q0001/a.jpg'][datasets.IMAGE] == jpeg(ord('g'))
  assert found['flickr/q0001/a.jpg'][datasets.IMAGE] == jpeg(ord('f'))
  assert found['flickr/q0002/d.jpg'][datasets.LABEL] == 999
  assert len(found) == 6 and len(labels(folder / 'out' / 'val')) == 60


@pytest.mark.parametrize('val', [
    'val_images', 'val_images_resized_256', '.'])
def test_other_folders(folder, val):
  """Of validation images and of resized ones."""
  web = folder / 'web'
  (web / 'resized_256').mkdir()
  (web / 'google').rename(web / 'resized_256' / 'google')
  for path in (web / 'val_images_256').iterdir():
    put(web / val / path.name, path.read_bytes())
    path.unlink()
  ok(prepare(folder, **MINI))
  assert len(labels(folder / 'out' / '0')) == 3
  assert len(labels(folder / 'out' / 'val')) == 50


def test_images_of_one_site_do_not_stand_for_the_other(folder):
  (folder / 'web' / 'flickr' / 'q0001' / 'a.jpg').unlink()
  out = ok(prepare(folder, **dict(MINI, dataset_name='webvision')))
  assert 'of 6 listed, 1 missing (missing.csv)' in out
  assert (folder / 'out' / '0' / 'missing.csv').read_text().endswith(
      '\n0,,flickr/q0001/a.jpg\n')


def test_lists_of_version_2_are_refused(folder):
  put(folder / 'web' / 'info' / 'synsets.txt', ''.join(
      f'n{k:08d} x\n' for k in range(5000)))
  refused(prepare(folder, **MINI), 'synsets.txt has 5000 lines.*WebVision 1.0')


@pytest.mark.parametrize('name, content, words', [
    ('synsets.txt', 'x y\n' * 1000, 'not a WordNet id'),
    ('train_filelist_google.txt', 'google/q0001/a.jpg 1000\n',
     'line 1 has class 1000.*not of WebVision 1.0'),
    ('train_filelist_google.txt', 'google/q0001/a.jpg\n', 'line 1 is not'),
    ('train_filelist_google.txt', '', 'is empty'),
    ('train_filelist_google.txt', 'google/q9/x.jpg 1\n',
     '0: none of its 1 images, such as google/q9'),
    ('val_filelist.txt', 'other.jpg 0\n', 'no images of the validation set'),
])
def test_bad_lists_are_one_line(folder, name, content, words):
  put(folder / 'web' / 'info' / name, content)
  refused(prepare(folder, **MINI), words)
  assert not (folder / 'out').exists()


@pytest.mark.parametrize('change, words', [
    (dict(image_root='out'), 'out.*is not|out.info|synsets.txt cannot'),
    (dict(noise_levels='0.4'), '--noise_levels is for mini_imagenet_red'),
    (dict(fetch_images=True), '--fetch_images is for mini_imagenet_red'),
    (dict(val_root='none'), '--val_root=none is not a directory'),
    (dict(val_list='web/info/val_filelist.txt'), '--val_list needs --val_root'),
    (dict(annotations='none'), 'none/synsets.txt cannot be read.*folder info'),
    (dict(image_root='web/info'), 'web/info has no images of the validation'),
    (dict(image_root='web/val_images_256', annotations='web'),
     '0: none of its 3 images, such as google/q0001/a.jpg, is below '
     '--image_root=web/val_images_256; .* as --image_root'),
    (dict(val_root='web'), 'has no validation image of the 50.*unpack'),
])
def test_bad_flags_are_one_line(folder, change, words):
  refused(prepare(folder, **dict(MINI, **change)), words)


def test_ilsvrc12_is_a_second_test_set(folder):
  for k in range(50):
    put(folder / 'val' / IDS[k] / val_name(k + 1), jpeg(k))
  out = ok(prepare(folder, val_root='val', **MINI))
  assert 'val_ilsvrc12: 50 photographs, clean labels' in out
  assert labels(folder / 'out' / 'val_ilsvrc12') == {
      val_name(k + 1)[:-5]: k for k in range(50)}


def flat(tmp_path):
  """A folder of validation images, in no order."""
  for number in reversed(NUMBERS):
    put(tmp_path / 'val' / val_name(number))
  return tmp_path / 'val'


def found_labels(folder, num_classes=1000, ids=None, val_list=None):
  return {int(row.id[-8:]): row.label for row in ilsvrc12.rows_of(
      str(folder), ids or IDS, num_classes, val_list)}


RIGHT = {number: IDS.index(class_of(number)) for number in NUMBERS}


@pytest.mark.parametrize('inner', ['', 'val'])
def test_folders_by_wordnet_id(tmp_path, inner):
  for number in NUMBERS:
    put(tmp_path / inner / class_of(number) / val_name(number))
  assert found_labels(tmp_path) == RIGHT
  # By id, not by the order of the folders.
  other = IDS[::-1]
  assert found_labels(tmp_path, ids=other) == {
      number: 999 - label for number, label in RIGHT.items()}
  assert found_labels(tmp_path, 50) == {
      number: label for number, label in RIGHT.items() if label < 50}


def test_numbered_folders(tmp_path):
  for number in range(50):
    put(tmp_path / str(number) / val_name(number + 6))
  assert found_labels(tmp_path, 50) == {k + 6: k for k in range(50)}
  with pytest.raises(UserError, match='sorted WordNet ids, and synsets.txt'):
    found_labels(tmp_path, 50, IDS[::-1])


@pytest.mark.parametrize('name, line', [
    ('imagenet_2012_validation_synset_labels.txt', '{wnid}'),
    ('imagenet_val.txt', '{name} {label}'),
    ('LOC_val_solution.csv', '{stem},{wnid} 1 2 3 4 {wnid} 5 6 7 8')])
@pytest.mark.parametrize('place', ['val', '.', 'other'])
def test_flat_images_with_a_list(tmp_path, name, line, place):
  """Images go with their numbers, in whatever order folder and list are."""
  folder = flat(tmp_path)
  lines = [line.format(wnid=class_of(number), name=val_name(number),
                       stem=val_name(number)[:-5], label=RIGHT[number])
           for number in NUMBERS]
  if '{wnid}' != line:
    lines.reverse()
  if name.endswith('.csv'):
    lines.insert(0, 'ImageId,PredictionString')
  path = put(tmp_path / place / name, '\n'.join(lines) + '\n')
  assert found_labels(folder, val_list=str(path) if place == 'other' else None
                      ) == RIGHT


def test_the_devkit_has_an_order_of_its_own(tmp_path):
  io = pytest.importorskip('scipy.io')
  import numpy as np
  folder = flat(tmp_path)
  devkit = IDS[3:] + IDS[:3]  # Entry k is class k + 1.
  put(tmp_path / 'ILSVRC2012_devkit_t12' / 'data' / 'x')
  data = tmp_path / 'ILSVRC2012_devkit_t12' / 'data'
  put(data / 'ILSVRC2012_validation_ground_truth.txt', ''.join(
      f'{devkit.index(class_of(number)) + 1}\n' for number in NUMBERS))
  with pytest.raises(UserError, match='order of the devkit.*meta.mat'):
    found_labels(folder)
  table = np.array([(k + 1, wnid) for k, wnid in enumerate(
      devkit + ['n99999999'])], [('ILSVRC2012_ID', 'f8'), ('WNID', object)])
  io.savemat(str(data / 'meta.mat'), {'synsets': table[:, None]})
  assert found_labels(folder) == RIGHT
  put(data / 'meta.mat', 'x' * 200)
  with pytest.raises(UserError, match='is not the meta.mat'):
    found_labels(folder)


def test_the_devkit_without_scipy(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'scipy', None)
  folder = flat(tmp_path)
  put(folder / 'ILSVRC2012_validation_ground_truth.txt', '490\n' * 12)
  put(folder / 'meta.mat', 'x')
  with pytest.raises(UserError, match='pip install scipy, or pass folders'):
    found_labels(folder)


@pytest.mark.parametrize('name, content, words', [
    ('imagenet_val.txt', ''.join(  # In the order of an unsorted folder.
        f'{val_name(13 - number)} {RIGHT[number]}\n' for number in NUMBERS),
     'image 1 is of class n01751748.*another order'),
    ('imagenet_2012_validation_synset_labels.txt', ''.join(
        f'{class_of(number)}\n' for number in reversed(NUMBERS)),
     'image 1 is of class n01751748'),
    ('imagenet_val.txt', f'{val_name(6)} 1000\n', 'class 1000; they are 0 to'),
    ('imagenet_val.txt', f'{val_name(6)} cat\n', 'neither WordNet ids nor'),
    ('imagenet_val.txt', 'x.JPEG 1\n', 'does not begin with ILSVRC2012_val_'),
    ('imagenet_val.txt', '\n', 'is empty'),
    ('other.txt', '', 'says their classes'),
])
def test_bad_lists_of_classes(tmp_path, name, content, words):
  folder = flat(tmp_path)
  put(folder / name, content)
  with pytest.raises(UserError, match=words):
    found_labels(folder)


def test_training_images_are_no_validation_images(tmp_path):
  put(tmp_path / IDS[0] / f'{IDS[0]}_12.JPEG')
  with pytest.raises(UserError, match='not a validation image of ILSVRC12'):
    found_labels(tmp_path)
  with pytest.raises(UserError, match='has no validation image'):
    found_labels(tmp_path / IDS[0] / '..' / '..', ids=IDS)


def test_lists_are_read_line_by_line(tmp_path):
  path = put(tmp_path / 'list', '\ufeffa b.jpg 3\n\nc.jpg 7\n')
  assert list(webvision.listed(str(path), 1000)) == [('a b.jpg', 3),
                                                     ('c.jpg', 7)]
