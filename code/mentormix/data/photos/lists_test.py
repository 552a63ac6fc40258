"""Tests of sets of photographs from lists of paths and labels."""
import pytest

from mentormix.data import datasets
from mentormix.data.photos.testing import (
    facts, jpeg, ok, prepare, put, records, refused)

OWN = dict(dataset_name='own', image_list='train.csv', val_list='val.txt',
           image_root='images')


@pytest.fixture(name='folder')
def fixture_folder(tmp_path):
  for name in 'abcdef':
    put(tmp_path / 'images' / name / 'x.jpg', jpeg(ord(name)))
  put(tmp_path / 'train.csv', 'path,label,clean_label\na/x.jpg,0,0\n'
      'b/x.jpg,1,0\nc/x.jpg,2,2\n"d/x.jpg",1,1\n')
  put(tmp_path / 'val.txt', 'e/x.jpg 0\nf/x.jpg 2\n')
  return tmp_path


def test_list_with_clean_labels(folder):
  assert '4 photographs, labels as listed, 0.2500 realised' in ok(
      prepare(folder, **OWN))
  found = records(folder / 'out' / '0')
  assert {name: (record[datasets.LABEL], record[datasets.CLEAN_LABEL],
                 record[datasets.IMAGE]) for name, record in found.items()} == {
      'a/x.jpg': (0, 0, jpeg(97)), 'b/x.jpg': (1, 0, jpeg(98)),
      'c/x.jpg': (2, 2, jpeg(99)), 'd/x.jpg': (1, 1, jpeg(100))}
  assert list(records(folder / 'out' / 'val')) == ['e/x.jpg', 'f/x.jpg']
  assert facts(folder / 'out' / '0')['class_names'] == ['0', '1', '2']


@pytest.mark.parametrize('text', [
    'a/x.jpg 0\nb/x.jpg 2\n', 'file\tnoisy\na/x.jpg\t0\nb/x.jpg\t2\n',
    'index,path,label\n1,b/x.jpg,2\n0,a/x.jpg,0\n'])
def test_forms_of_lists(folder, text):
  put(folder / 'train.csv', text)
  ok(prepare(folder, **OWN))
  found = records(folder / 'out' / '0')
  assert {name: record[datasets.LABEL] for name, record in found.items()
          } == {'a/x.jpg': 0, 'b/x.jpg': 2}
  assert datasets.CLEAN_LABEL not in found['a/x.jpg']


def test_roots_default_to_the_folder_of_the_list(folder):
  for name in ('train.csv', 'val.txt'):
    (folder / name).rename(folder / 'images' / name)
  ok(prepare(folder, dataset_name='own', image_list='images/train.csv',
             val_list='images/val.txt'))
  assert len(records(folder / 'out' / '0')) == 4
  put(folder / 'images' / 'val.txt', 'images/e/x.jpg 0\n')
  refused(prepare(folder, '--overwrite', dataset_name='own',
                  image_list='images/train.csv', val_list='images/val.txt'),
          'below the folder of --val_list=images/val.txt; .*as --val_root')


@pytest.mark.parametrize('train, val, change, words', [
    ('', None, {}, 'image_list=train.csv cannot be read.*empty'),
    ('path,label\n', None, {}, 'no row of labels'),
    ('a/x.jpg -1\nb/x.jpg 1\n', None, {}, 'image_list=train.csv.* label -1'),
    (None, 'e/x.jpg 3\n', {}, 'val_list=val.txt has the label 3.*0 to 2'),
    ('a/x.jpg cat\nb/x.jpg dog\n', None, {}, 'cat|whole numbers'),
    ('a/x.jpg 0\nb/x.jpg 4000000000\n', None, {}, 'label 4000000000.*99999'),
    ('1\n2\n', None, {}, 'names no images'),
    ('a/x.jpg 0\nb/x.jpg 0\n', None, {}, 'one class'),
    (None, 'z.jpg 0\n', {}, 'val: none of its 1 images, such as z.jpg,.*--image_root=images'),
    (None, None, dict(val_list='none'), 'val_list=none is not a file'),
    (None, None, dict(val_list=None), 'needs --val_list'),
    ('a/x.jpg 1\nb/x.jpg 2\n', 'e/x.jpg 1\n', {}, 'no label 0.*counted from 0'),
    (None, None, dict(dataset_name='webvision'), 'does not fit --image_list'),
    (None, None, dict(dataset_name='cifar10'), 'does not fit --image_list'),
    (None, None, dict(dataset_name=None), 'does not fit --image_list'),
    (None, None, dict(annotations='x'), 'exclude each other'),
    (None, None, dict(noise_levels='0.2'), '--noise_levels is for'),
    (None, None, dict(image_root='none'), 'image_root=none is not a dir'),
    (None, None, dict(image_root=''), 'image_root is empty'),
])
def test_bad_input_is_one_line(folder, train, val, change, words):
  for name, text in (('train.csv', train), ('val.txt', val)):
    if text is not None:
      put(folder / name, text)
  flags = {name: value for name, value in dict(OWN, **change).items()
           if value is not None}
  refused(prepare(folder, **flags), words)
  assert not (folder / 'out').exists()


def test_held_out(folder):
  """Two of four rows are held out; one of the four has a wrong label."""
  out = ok(prepare(folder, holdout=0.5, **OWN))
  assert 'held-out images with --data_dir=out/0_holdout' in out
  kept, held = (records(folder / 'out' / name) for name in ('0', '0_holdout'))
  assert len(kept) == len(held) == 2
  assert {name: record[datasets.LABEL] for name, record in
          {**kept, **held}.items()} == {
              'a/x.jpg': 0, 'b/x.jpg': 1, 'c/x.jpg': 2, 'd/x.jpg': 1}
  for name, split, noisy in (('0', 'train', 'b/x.jpg' in kept),
                             ('0_holdout', 'test', 'b/x.jpg' in held)):
    found = facts(folder / 'out' / name)
    assert [found[key] for key in (
        'split', 'holdout', 'num_held_out', 'num_kept', 'num_examples',
        'num_listed', 'rate_realised')] == [split, 0.5, 2, 2, 2, 2, noisy / 2]
  assert ok(prepare(folder, holdout=0.5, **OWN)).count('kept') == 3
  assert 'made with' in prepare(folder, holdout=0.25, **OWN).err
  assert 'out/0_holdout holds images' in prepare(folder, **OWN).err
