"""Tests of the files of a data set: names and bytes."""
import pytest

from mentormix.data import datasets
from mentormix.data.record_checks_test import record
from mentormix.messages import UserError


def test_records_are_the_same_bytes_every_time():
  assert record() == record() != record(label=4)


def test_files_are_found_by_name(tmp_path):
  dataset = datasets.get('cifar10')
  for name in ('cifar10_train-1', 'cifar10_train-0', 'cifar10_test-0',
               'noise.json', '.cifar10_train-2'):
    (tmp_path / name).write_bytes(b'')
  files = datasets.find_files(dataset, 'train', str(tmp_path))
  assert files == [str(tmp_path / 'cifar10_train-0'),
                   str(tmp_path / 'cifar10_train-1')]


def test_missing_empty_and_foreign_directories(tmp_path):
  find = lambda name, path: datasets.find_files(
      datasets.get(name), 'train', str(path))
  with pytest.raises(UserError, match='is not a directory'):
    find('cifar10', tmp_path / 'nowhere')
  with pytest.raises(UserError, match='holds nothing'):
    find('cifar10', tmp_path)
  (tmp_path / 'cifar10_train-0').write_bytes(b'')
  with pytest.raises(UserError, match='cifar100_train-.*cifar10_train-0'):
    find('cifar100', tmp_path)
  with pytest.raises(UserError, match='known are cifar10, cifar100'):
    datasets.get('imagenet')


@pytest.mark.parametrize('names, odd', [
    (['00000-of-00003', '00002-of-00003'], ['00001-of-00003']),
    (['00002-of-00003'], ['00000-of-00003', '00001-of-00003']),
    (['00000-of-00001', '00000-of-00002', '00001-of-00002'],
     ['00000-of-00002', '00001-of-00002']),
    (['00000-of-00001', '00000-of-00001.bak'], ['00000-of-00001.bak']),
    (['00000-of-00001', '00001-of-00001'], ['00001-of-00001']),
    (['00000-of-00001', '0-of-1'], ['0-of-1'])])
def test_missing_and_mixed_files(tmp_path, names, odd):
  for name in names:
    (tmp_path / ('cifar10_train-' + name)).write_bytes(b'')
  (tmp_path / 'cifar10_test-00000-of-00007').write_bytes(b'')
  with pytest.raises(UserError, match='exactly the files of one set: '
                     + ', '.join(f'cifar10_train-{name}' for name in odd)
                     + '; copy or make'):
    datasets.find_files(datasets.get('cifar10'), 'train', str(tmp_path))


@pytest.mark.parametrize('facts, words', [
    ('{"dataset_name": "own", "image_size": 32}', "lacks 'num_classes'"),
    ('{"dataset_name": "own", "num_classes": "x"}', 'noise.json lacks'),
    ('{"dataset_name": "other"}', 'own is unknown here: .*holds other'),
    ('{"dataset_name": "own", "num_classes": 2, "photographs": true}',
     "lacks 'num_examples'")])
def test_facts_of_a_custom_set(tmp_path, facts, words):
  (tmp_path / 'noise.json').write_text(facts)
  with pytest.raises(UserError, match=words):
    datasets.get('own', str(tmp_path))


def test_a_wrong_directory_names_the_right_ones(tmp_path):
  for name in ('0', 'val'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'noise.json').write_text('{"dataset_name": "own"}')
  (tmp_path / 'notes').mkdir()
  with pytest.raises(UserError, match=f'prepare_data.py made: {tmp_path}/0, '
                     f'{tmp_path}/val; also known'):
    datasets.get('own', str(tmp_path))
  with pytest.raises(UserError, match=f'directory of a split: {tmp_path}/0'):
    datasets.find_files(datasets.get('digits'), 'train', str(tmp_path))
  (tmp_path / 'val' / 'digits_test-00000-of-00001').write_bytes(b'')
  with pytest.raises(UserError, match='is a test set; name a training set'):
    datasets.find_files(datasets.get('digits'), 'train', str(tmp_path / 'val'))


def test_complete_files(tmp_path):
  for name in ('cifar10_train-00000-of-00002', 'cifar10_train-00001-of-00002',
               'cifar10_test-00000-of-00001'):
    (tmp_path / name).write_bytes(b'')
  find = lambda split: datasets.find_files(
      datasets.get('cifar10'), split, str(tmp_path))
  assert len(find('train')) == 2
  assert len(find('test')) == 1
