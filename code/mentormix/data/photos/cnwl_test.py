"""Tests of Controlled Noisy Web Labels in the layouts that users have."""
import shutil
import zipfile

import pytest

from mentormix.data import datasets
from mentormix.data import noise
from mentormix.data.photos import cnwl
from mentormix.data.photos import finding
from mentormix.data.photos import wnids
from mentormix.data.photos.testing import (
    facts, jpeg, mini_name, mini_rows, ok, prepare, put, put_tar, records,
    red_rows, refused, val_rows, value_of, WEB, write_annotations, write_images)

RED = dict(dataset_name='mini_imagenet_red', noise_levels='0.4',
           annotations='a', image_root='images')


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  """Annotations in a, images in images."""
  write_annotations(tmp_path / 'a')
  write_images(tmp_path / 'images', mini_rows() + red_rows() + val_rows())
  return tmp_path


def check_red(out):
  """That the set of red noise is complete and right, image by image."""
  found = records(out / '0.4')
  assert {name: record[datasets.LABEL] for name, record in found.items()
          } == dict(red_rows())
  for name, record in found.items():
    assert record[datasets.IMAGE] == jpeg(value_of(name))
    assert record[datasets.FORMAT] == b'jpeg'
    clean = noise.WRONG_LABEL if name in WEB else record[datasets.LABEL]
    assert record[datasets.CLEAN_LABEL] == clean
  val = records(out / 'val')
  assert {name: record[datasets.CLEAN_LABEL]
          for name, record in val.items()} == dict(val_rows())


def test_red_set_and_its_facts(folder):
  out = ok(prepare(folder, **RED))
  check_red(folder / 'out')
  assert '18 photographs, red noise, 0.4 asked, 0.5556 realised' in out
  found = facts(folder / 'out' / '0.4')
  assert found['photographs'] is True and found['num_classes'] == 100
  assert found['class_names'][2] == 'class 2'
  assert found['wnids'] == list(wnids.MINI_IMAGENET)
  assert found['rate_asked'] == 0.4 and found['num_changed'] == 10
  assert found['rate_realised'] == found['rate_listed'] == 10 / 18
  assert sum(found['clean_label_counts']) == 8
  dataset = datasets.get('mini_imagenet_red', str(folder / 'out' / '0.4'))
  assert dataset.photographs and dataset.image_size is None
  assert dataset.num_classes == 100
  assert len(datasets.find_files(dataset, 'train', str(
      folder / 'out' / '0.4'))) == 10
  lines = (folder / 'out' / '0.4' / 'labels.csv').read_text().splitlines()
  assert lines[1] == f'0,0,0,{mini_name(0, 1)}' and len(lines) == 19
  assert lines[-1] == f'17,5,-2,{WEB[9]}'


def test_second_run_keeps_and_overwrite_replaces(folder):
  ok(prepare(folder, **RED))
  assert prepare(folder, **RED).out.count('kept') == 2
  refused(prepare(folder, seed=1, **RED), 'was made with seed 0.*--overwrite')
  ok(prepare(folder, '--overwrite', seed=1, **RED))
  assert facts(folder / 'out' / '0.4')['seed'] == 1


@pytest.mark.parametrize('hyphen, classes', [
    ('mini-imagenet', 'class_names.txt'), ('mini_imagenet', 'class_name.txt')])
@pytest.mark.parametrize('inside', ['', 'dataset_no_images/'])
def test_spellings_in_folder_and_zip(tmp_path, hyphen, classes, inside):
  """Folders with - or _, class_name(s).txt, directly or in a folder."""
  write_annotations(tmp_path / 'a' / inside, hyphen=hyphen, classes=classes)
  with zipfile.ZipFile(str(tmp_path / 'a.zip'), 'w') as archive:
    for path in (tmp_path / 'a').rglob('*'):
      archive.write(str(path), str(path.relative_to(tmp_path / 'a')))
  for path in ('a', 'a.zip'):
    annotations = cnwl.Annotations(str(tmp_path / path))
    assert len(cnwl.class_names(annotations, 'mini_imagenet')) == 100
    split = cnwl.read_split(annotations, 'mini_imagenet', 'red_noise_nl_0.4')
    assert list(zip(split.names, split.labels)) == red_rows()


def test_cars_have_underscores_in_folders_and_hyphens_in_json(tmp_path):
  write_annotations(tmp_path / 'a', 'stanford_cars', 'stanford_cars', url='u')
  write_images(tmp_path / 'images', red_rows() + val_rows())
  urls = cnwl.urls('stanford_cars_red', str(tmp_path / 'a'), [0.4])
  assert urls == {name: f'u/{name}' for name in WEB}
  ok(prepare(tmp_path, **dict(RED, dataset_name='stanford_cars_red')))
  check_red(tmp_path / 'out')
  assert facts(tmp_path / 'out' / '0.4')['num_classes'] == 196
  assert facts(tmp_path / 'out' / '0.4')['wnids'] is None


def test_annotations_are_lists_of_one_object(tmp_path):
  write_annotations(tmp_path, url='http://x')
  urls = cnwl.urls('mini_imagenet_red', str(tmp_path), [0.4])
  assert urls == {name: f'http://x/{name}' for name in WEB}


@pytest.mark.parametrize('train, val', [
    ('all_images/{name}', 'validation/{label}/{name}'),  # PropMix and others.
    ('training/red_noise_nl_0.4/{label}/{name}', 'validation/{label}/{name}'),
    ('all_images_resampled_84/{name}', 'all_images_resampled_84/{name}'),
    ('all_images/{name}', 'all_validation/{name}'),  # CLIPCleaner.
    ('{label}/{name}', 'val/{label}/{name}')])  # FaMUS.
@pytest.mark.parametrize('beside', [False, True])
def test_layouts_of_others(folder, train, val, beside):
  """The images may lie beside the class names and the folder of splits."""
  shutil.rmtree(str(folder / 'images'))
  root = folder / ('a/mini-imagenet' if beside else 'images')
  for layout, rows in ((train, red_rows()), (val, val_rows())):
    for name, label in rows:
      put(root / (layout.format(name=name, label=label) + '.jpg'),
          jpeg(value_of(name)))
  ok(prepare(folder, **dict(RED, image_root='a' if beside else 'images')))
  check_red(folder / 'out')


def test_cars_with_a_folder_and_a_label_for_each_image(tmp_path):
  write_annotations(tmp_path / 'a', 'stanford_cars', 'stanford_cars')
  for split, rows in (('train', red_rows()), ('val', val_rows())):
    for name, label in rows:
      folder = tmp_path / 'stanford_cars_red_80' / split / name
      put(folder / f'{name}.jpg', jpeg(value_of(name)))
      put(folder / 'label.txt', str(label))
  ok(prepare(tmp_path, **dict(RED, dataset_name='stanford_cars_red',
                              image_root='stanford_cars_red_80')))
  check_red(tmp_path / 'out')


def train_images(rows):
  """ILSVRC12 name -> bytes: four images of each class, with gaps between."""
  by_rank = {1: 5, 2: 17, 3: 171, 4: 1002}  # Not their order as text.
  return {f'{name[:9]}_{by_rank[rank]}.JPEG': jpeg(value_of(
      f'{name[:9]}{rank:08d}')) for name, _ in rows for rank in by_rank}


@pytest.mark.parametrize('inside', ['noisy_images',
                                    'dataset_no_images/noisy_images'])
@pytest.mark.parametrize('packed', [True, False])
def test_tfds_manual_folder(tmp_path, monkeypatch, inside, packed):
  """Both places of noisy_images; images by rank, in archives or folders."""
  monkeypatch.setattr(finding, 'FEWEST_OF_A_CLASS', 4)
  manual = tmp_path / 'manual'
  write_annotations(manual / 'dataset_no_images')
  write_images(manual / inside, red_rows()[8:])
  train = train_images(mini_rows())
  val = {f'{name}.JPEG': jpeg(value_of(name)) for name, _ in val_rows()}
  if packed:
    classes = {}
    for wnid in sorted({name[:9] for name in train}) + ['n00000001']:
      put_tar(tmp_path / 'one.tar', {name: data for name, data in train.items()
                                     if name.startswith(wnid)})
      classes[f'{wnid}.tar'] = (tmp_path / 'one.tar').read_bytes()
    put_tar(manual / 'ILSVRC2012_img_train.tar', classes)
    put_tar(manual / 'ILSVRC2012_img_val.tar', val)
  else:
    for name, data in train.items():
      put(manual / 'train' / name[:9] / name, data)
    for name, data in val.items():
      put(manual / 'val' / name, data)
  ok(prepare(tmp_path, **dict(RED, annotations='manual', image_root='manual')))
  check_red(tmp_path / 'out')


def test_index_of_a_name_is_a_rank_not_a_number(tmp_path, monkeypatch):
  """Image 4 of a class is its fourth, even if there is one with number 4."""
  monkeypatch.setattr(finding, 'FEWEST_OF_A_CLASS', 4)
  for number in (4, 20, 100, 3000, 99999):
    put(tmp_path / 'n01532829' / f'n01532829_{number}.JPEG')
  names = {f'n01532829{rank:08d}' for rank in (1, 4, 6)}
  found = finding.ByName('image_root', [str(tmp_path)], names)
  assert [finding.stem(found.get(name)) for name in sorted(names)] == [
      'n01532829_4', 'n01532829_3000', '']


def test_ranks_need_the_whole_class(folder):
  shutil.rmtree(str(folder / 'images'))
  for name, data in train_images(mini_rows()).items():
    put(folder / 'images' / name[:9] / name, data)
  refused(prepare(folder, **RED), 'has 4 training images.*732.*complete')


def test_classes_are_not_in_sorted_order(folder):
  assert wnids.MINI_IMAGENET[0] == 'n01704323' != min(wnids.MINI_IMAGENET)
  assert len(set(wnids.MINI_IMAGENET)) == 100
  path = folder / 'a' / 'mini-imagenet' / 'split' / 'red_noise_nl_0.4'
  order = sorted(wnids.MINI_IMAGENET)
  path.write_text(''.join(
      f'{name}.jpg {order.index(name[:9])}\n' for name, _ in mini_rows()))
  refused(prepare(folder, **RED), 'is of class.*classes are in another order')


def test_validation_names_end_otherwise_on_disk(folder):
  """The split says .jpg, the files of ILSVRC12 .JPEG."""
  for path in (folder / 'images').glob('ILSVRC2012_val_*'):
    path.rename(path.with_suffix('.JPEG'))
  ok(prepare(folder, **RED))
  check_red(folder / 'out')


def test_blue_rate_is_counted(folder):
  """Not the rate in the name of the file."""
  out = ok(prepare(folder, **dict(RED, dataset_name='mini_imagenet_blue')))
  assert 'blue noise, 0.4 asked, 0.3889 realised' in out
  found = facts(folder / 'out' / '0.4')
  assert found['rate_realised'] == 7 / 18 and found['rate_asked'] == 0.4
  for name, record in records(folder / 'out' / '0.4').items():
    assert record[datasets.CLEAN_LABEL] == dict(mini_rows())[name]


def test_blue_rows_must_be_in_the_order_of_the_clean_ones(folder):
  path = folder / 'a' / 'mini-imagenet' / 'split' / 'blue_noise_nl_0.0'
  path.write_text('\n'.join(reversed(path.read_text().splitlines())))
  refused(prepare(folder, **dict(RED, dataset_name='mini_imagenet_blue')),
          'line by line')


def test_numbers_of_rows_are_as_listed(folder):
  """A split may have any number of rows, as those of .3, .4, .5 and .8."""
  path = folder / 'a' / 'mini-imagenet' / 'split' / 'red_noise_nl_0.4'
  path.write_text(''.join(path.read_text().splitlines(True)[:-5]))
  ok(prepare(folder, **RED))
  assert facts(folder / 'out' / '0.4')['num_examples'] == 13


def test_missing_images_are_listed_and_counted(folder):
  for name in WEB[:4]:
    (folder / 'images' / f'{name}.jpg').unlink()
  out = ok(prepare(folder, **RED))
  assert ('14 photographs, red noise, 0.4 asked, 0.4286 realised; of 18 listed,'
          ' 4 missing (missing.csv), with which it would be 0.5556') in out
  lines = (folder / 'out' / '0.4' / 'missing.csv').read_text().splitlines()
  assert lines == ['label,clean_label,source_id'] + [
      f'{label},-2,{name}' for name, label in red_rows()[8:12]]
  found = facts(folder / 'out' / '0.4')
  assert (found['num_listed'], found['num_missing']) == (18, 4)
  # Images that have come since are not ignored.
  write_images(folder / 'images', red_rows())
  refused(prepare(folder, **RED), 'num_missing 4, not 0.*--overwrite')


def test_two_images_of_a_name(folder):
  write_images(folder / 'images' / 'again', red_rows())  # The same bytes.
  ok(prepare(folder, **RED))
  put(folder / 'images' / 'small' / f'{WEB[0]}.jpg', jpeg(0, (8, 8)))
  refused(prepare(folder, '--overwrite', **RED),
          f'two images are called {WEB[0]}, .*small.*--val_root')


def test_names_of_cars_collide_between_train_and_test(tmp_path):
  write_annotations(tmp_path / 'a', 'stanford_cars', 'stanford_cars')
  for split, label in (('red_noise_nl_0.4', 1), ('clean_validation', 2)):
    put(tmp_path / 'a' / 'stanford_cars' / 'split' / split,
        ''.join(f'{k:05d}.jpg {label}\n' for k in range(4)))
  for k in range(4):
    put(tmp_path / 'images' / 'cars_train' / f'{k:05d}.jpg', jpeg(k))
    put(tmp_path / 'images' / 'cars_test' / f'{k:05d}.jpg', jpeg(k + 9, (9, 9)))
  cars = dict(RED, dataset_name='stanford_cars_red')
  refused(prepare(tmp_path, **cars), 'two images are called 00000.*--val_root')
  ok(prepare(tmp_path, **dict(cars, image_root='images/cars_train',
                              val_root='images/cars_test')))
  assert records(tmp_path / 'out' / 'val')['00001'][
      datasets.IMAGE] == jpeg(10, (9, 9))


@pytest.mark.parametrize('change, words', [
    (dict(annotations='none'), 'annotations=none cannot be read.*zip'),
    (dict(annotations='images'), 'has no mini-imagenet/class_names.txt'),
    (dict(noise_levels='0.45'), '0.45 is not published.*0.8'),
    (dict(noise_levels='0.8'), 'has no .*red_noise_nl_0.8'),
    (dict(image_root='none'), '--image_root=none is not a directory'),
    (dict(image_root='a'), 'val: none of its 12 images, such as ILSVRC2012_val_'
     '00000001, is below --image_root=a; .*as --val_root'),
    (dict(val_root='a'), 'val: none of its 12.*--val_root=a'),
    (dict(image_root='a', val_root='images'),
     '0.4: none of its 18.*--image_root=a; .*as --image_root'),
    (dict(annotations='a/mini-imagenet'), 'has no mini-imagenet/split'),
    (dict(dataset_name='stanford_cars_red'), 'has no stanford-cars/class_name'),
    (dict(noise_levels='40'), '--noise_levels=40 must be .* from 0 to 1'),
    (dict(val_root='none'), '--val_root=none is not a directory'),
    (dict(annotations=None), 'needs --annotations'),
    (dict(image_root=None), 'needs --image_root'),
    (dict(val_list='x'), '--val_list is for'),
    (dict(image_size=32), '--image_size is not for sets of photographs'),
    (dict(num_shards=13), 'num_shards=13 leaves files empty.*12 images'),
    (dict(max_side=3), 'max_side'),
    (dict(dataset_name='digits'), 'annotations is for photographs'),
    (dict(dataset_name='mini_imagenet_green'), 'mini_imagenet_red'),
    (dict(dataset_name='mini_imagenet_blue', fetch_images=True),
     'has none'),
])
def test_bad_input_is_one_line(folder, change, words):
  flags = dict(RED, **change)
  refused(prepare(folder, **{name: value for name, value in flags.items()
                             if value is not None}), words)
  assert not (folder / 'out').exists()


def test_an_archive_of_annotations_that_is_cut_off(folder):
  shutil.make_archive(str(folder / 'a'), 'zip', str(folder / 'a'))
  with open(str(folder / 'a.zip'), 'r+b') as archive:
    archive.truncate(1000)
  refused(prepare(folder, **dict(RED, annotations='a.zip')),
          'a.zip cannot be read.*it is cut off.; pass dataset_no_images.zip')


@pytest.mark.parametrize('name', [
    'ILSVRC2012_img_val.tar', 'ILSVRC2012_img_train.tar', 'n01704323.tar'])
@pytest.mark.parametrize('content, words', [
    (None, 'it is cut off'), (b'', 'it is an empty file'),
    (b'<html>', 'it is a web page')])
def test_bad_archives_of_images(folder, name, content, words):
  path = folder / 'images' / name
  if content is None:
    put_tar(path, {'n01704323.tar': jpeg(0, (99, 99))})
    content = path.read_bytes()[:2000]
  put(path, content)
  refused(prepare(folder, **RED), f'{name} cannot be read .*{words}.; get it')
  assert not (folder / 'out').exists()


@pytest.mark.parametrize('name, content, words', [
    ('class_names.txt', 'a\nb\n', 'has 2 classes, not the 100'),
    ('split/red_noise_nl_0.4', '', 'red_noise_nl_0.4 is empty'),
    ('split/red_noise_nl_0.4', 'x.jpg 100\n', 'line 1 has class 100.*0 to 99'),
    ('split/red_noise_nl_0.4', 'x.jpg\n', 'line 1 is not'),
    ('split/red_noise_nl_0.4', 'x.jpg -1\n', 'line 1 is not'),
    ('split/red_noise_nl_0.4', b'\xff\xfe', 'cannot be read'),
    ('split/red_noise_nl_0.4', 'f000000000000000.jpg 1\n',
     '0.4: none of its 1 images, such as f000'),
])
def test_bad_annotations_are_one_line(folder, name, content, words):
  put(folder / 'a' / 'mini-imagenet' / name, content)
  refused(prepare(folder, **RED), words)
  assert not (folder / 'out').exists()
