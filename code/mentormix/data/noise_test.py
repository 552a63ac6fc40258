"""Tests of the three definitions of label noise."""
import hashlib

import numpy as np
import pytest

from mentormix.data import noise
from mentormix.messages import UserError

N = 20000
RATES = (0, 0.2, 0.4, 0.6, 0.8, 1)


def clean_labels(num_classes=10, count=N):
  return np.arange(count) % num_classes


def matrix(clean, given, num_classes=10):
  """Share of each clean class (row) that is given each class (column)."""
  counts = np.zeros([num_classes, num_classes])
  np.add.at(counts, (clean, given), 1)
  return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('rate', RATES)
def test_symmetric_others_changes_exactly_the_rate_asked(rate):
  clean = clean_labels()
  given = noise.corrupt(clean, rate, noise.SYMMETRIC_OTHERS, 10, seed=3)
  assert np.sum(clean != given) == round(rate * N)
  assert noise.realised_rate(clean, given) == pytest.approx(rate)
  expected = np.full([10, 10], rate / 9)
  np.fill_diagonal(expected, 1 - rate)
  np.testing.assert_allclose(matrix(clean, given), expected, atol=0.035)


@pytest.mark.parametrize('rate', RATES)
def test_symmetric_keeps_a_share_of_those_picked(rate):
  clean = clean_labels()
  given = noise.corrupt(clean, rate, noise.SYMMETRIC, 10, seed=3)
  assert noise.realised_rate(clean, given) == pytest.approx(0.9 * rate,
                                                            abs=0.01)
  expected = np.full([10, 10], rate / 10)
  np.fill_diagonal(expected, 1 - rate + rate / 10)
  np.testing.assert_allclose(matrix(clean, given), expected, atol=0.035)


def test_symmetric_picks_exactly_the_share_asked():
  # With two million classes a picked label is almost never the old one.
  given = noise.corrupt(np.zeros(1000), 0.3, noise.SYMMETRIC, 2000000, seed=0)
  assert np.sum(given != 0) == 300


def test_definitions_differ():
  clean = clean_labels()
  others, all_classes = (
      noise.corrupt(clean, 0.2, noise_type, 10, seed=0)
      for noise_type in (noise.SYMMETRIC_OTHERS, noise.SYMMETRIC))
  assert np.sum(clean != others) == 4000
  assert 3500 < np.sum(clean != all_classes) < 3700


CIFAR10 = ('airplane automobile bird cat deer dog frog horse ship '
           'truck').split()


@pytest.mark.parametrize('dataset_name, expected', [
    ('cifar10', {'truck': 'automobile', 'bird': 'airplane', 'deer': 'horse',
                 'cat': 'dog', 'dog': 'cat'}),
    ('digits', {7: 1, 2: 7, 5: 6, 6: 5, 3: 8})])
def test_asymmetric_follows_the_map(dataset_name, expected):
  if dataset_name == 'cifar10':
    expected = {CIFAR10.index(a): CIFAR10.index(b) for a, b in expected.items()}
  targets = noise.transition(dataset_name)
  clean = clean_labels()
  given = noise.corrupt(clean, 0.4, noise.ASYMMETRIC, 10, 1, targets)
  shares = matrix(clean, given)
  for source in range(10):
    target = expected.get(source, source)
    assert targets[source] == target
    stay = 0.6 if source in expected else 1
    assert shares[source, source] == pytest.approx(stay, abs=0.035)
    assert shares[source, source] + (source != target) * shares[
        source, target] == pytest.approx(1)
  assert noise.realised_rate(clean, given) == pytest.approx(0.2, abs=0.01)


def test_asymmetric_cifar100_goes_round_within_the_superclass():
  superclass = np.random.RandomState(0).permutation(np.arange(100) % 20)
  targets = noise.transition('cifar100', superclass)
  assert sorted(targets) == list(range(100))
  for k in range(100):
    assert superclass[targets[k]] == superclass[k]
    circle = [k]
    for _ in range(5):
      circle.append(targets[circle[-1]])
    assert circle[5] == k and len(set(circle)) == 5
  members = np.flatnonzero(superclass == 4)
  assert list(targets[members]) == list(members[1:]) + [members[0]]


@pytest.mark.parametrize('noise_type', list(noise.NOISE_TYPES))
def test_seed_decides(noise_type):
  clean = clean_labels(count=1000)
  targets = noise.transition('cifar10')
  first, same, other = (
      noise.corrupt(clean, 0.5, noise_type, 10, seed, targets)
      for seed in (7, 7, 8))
  assert np.array_equal(first, same)
  assert not np.array_equal(first, other)
  assert np.array_equal(clean, clean_labels(count=1000))  # Left alone.


def test_pinned_on_every_numpy():
  digest = hashlib.sha256()
  for noise_type in sorted(noise.NOISE_TYPES):
    given = noise.corrupt(clean_labels(), 0.4, noise_type, 10, 2**32 - 1,
                          noise.transition('digits'))
    assert given.dtype == np.int64
    digest.update(given.astype('<i8').tobytes())
  assert digest.hexdigest() == (
      '9d6da0ed2d1b8dee8a55bbc0e85861871e476237eda1d3e69af58cde2316599d')


@pytest.mark.parametrize('change', [
    {'rate': -0.1}, {'rate': 1.5}, {'rate': float('nan')},
    {'noise_type': 'pair'}])
def test_bad_arguments(change):
  arguments = {'labels': clean_labels(count=100), 'rate': 0.2,
               'noise_type': 'symmetric', 'num_classes': 10, 'seed': 0}
  noise.corrupt(**arguments)
  arguments.update(change)
  with pytest.raises(UserError):
    noise.corrupt(**arguments)


def test_no_map_without_superclasses():
  with pytest.raises(UserError, match='cifar100'):
    noise.transition('cifar100')


def test_no_labels():
  assert noise.realised_rate([], []) == 0
  assert noise.corrupt([], 0.5, 'symmetric', 10, 0).shape == (0,)
