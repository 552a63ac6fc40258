"""Labels in a wrong order or numbering are found out, with the evidence."""
import numpy as np
import pytest

from mentormix.data import label_checks
from mentormix.data import label_files
from mentormix.data import noise
from mentormix.messages import UserError

N = 2000
RANDOM = np.random.RandomState(0)
CLEAN = RANDOM.randint(0, 10, N)
WORSE = np.where(RANDOM.rand(N) < 0.6, CLEAN, RANDOM.randint(0, 10, N))
INDEX = RANDOM.permutation(N)
IDS = [f'train/{label}/{k}.png' for k, label in enumerate(CLEAN)]


def label_file(labels, clean=None, index=None, ids=None, has_index=False):
  return label_files.LabelFile('f', '', None, np.asarray(labels), clean, ids,
                               has_index, index)


def fit(found, source=CLEAN, num_classes=10, ids=None, force=False):
  return label_checks.fit(found, source, num_classes,
                          ids or list(map(str, range(len(source)))), force)


def test_clean_labels_vouch_for_the_order():
  assert fit(label_file(WORSE, CLEAN)) is not None
  with pytest.raises(UserError, match='%d of its 2000.*TFDS.*--noise_index'
                     % np.sum(CLEAN[INDEX] != CLEAN)):
    fit(label_file(WORSE[INDEX], CLEAN[INDEX]))


@pytest.mark.parametrize('order', [INDEX, np.argsort(INDEX)])
def test_the_index_is_used_the_way_that_fits(order):
  np.testing.assert_array_equal(
      fit(label_file(WORSE[order], CLEAN[order], INDEX)), WORSE)


@pytest.mark.parametrize('clean, index, words', [
    (CLEAN[::-1], INDEX, 'pass the index of this file'),
    (CLEAN[INDEX], INDEX[1:], '1999 numbers; .*from 0 to 1999 once'),
    (CLEAN[INDEX], np.zeros(N, int), 'each number from 0 to 1999 once'),
    (CLEAN[INDEX], INDEX + 1, 'each number from 0 to 1999 once'),
    (None, INDEX, 'no clean labels')])
def test_odd_indices(clean, index, words):
  with pytest.raises(UserError, match=words):
    fit(label_file(WORSE, clean, index))


def test_without_clean_labels_chance_is_found_out():
  for labels in (WORSE[INDEX], RANDOM.randint(0, 10, N)):
    with pytest.raises(UserError, match=r'nothing to do with the images '
                       r'\(\d+.\d% agree, by chance .* --force_labels'):
      fit(label_file(labels))
    assert fit(label_file(labels), force=True) is labels
  very_noisy = np.where(RANDOM.rand(N) < 0.3, CLEAN, RANDOM.randint(0, 10, N))
  for labels in (WORSE, very_noisy, CLEAN):
    assert fit(label_file(labels)) is labels
  # Of a few labels, only those that agree less than by chance are refused.
  few = label_file([0, 1, 1, 0])
  assert fit(few, np.array([0, 1, 0, 1]), 2) is few.labels
  with pytest.raises(UserError, match='0.0% agree, by chance it would be 50.0%'):
    fit(label_file([0, 1, 0, 1]), np.array([1, 0, 1, 0]), 2)


@pytest.mark.parametrize('noise_type,rate', [
    ('symmetric', 0.8), ('symmetric_others', 0.8), ('asymmetric', 0.5)])
@pytest.mark.parametrize('count', [60, 200, 2000])
def test_noise_of_these_kinds_is_accepted(noise_type, rate, count):
  for seed in range(9):
    labels = noise.corrupt(CLEAN[:count], rate, noise_type, 10, seed,
                           noise.transition('cifar10'))
    fit(label_file(labels), CLEAN[:count], force=count < 200 and rate > 0.5)


@pytest.mark.parametrize('count,rate', [(12, 0), (60, 0.4), (2000, 0.6)])
@pytest.mark.parametrize('renumber,words', [
    (lambda x: (x + 1) % 10, r'\(0 -> 1, 1 -> 2, 2 -> 3, ...\)'),
    (lambda x: 9 - x, r'\(0 -> 9, '),
    # As numbers sort as text, of 10 classes: only some are moved.
    (lambda x: np.array([0, 1, 2, 9, 3, 4, 5, 6, 7, 8])[x], r'\(3 -> 9, ')])
def test_another_numbering_is_found_out(count, rate, renumber, words):
  source = np.arange(count) % 10
  labels = renumber(noise.corrupt(source, rate, 'symmetric_others', 10, 0))
  with pytest.raises(UserError, match='look renumbered|agree, by chance') as e:
    fit(label_file(labels), source)
  if count > 60:
    with pytest.raises(UserError, match=f'look renumbered {words}.* as they '
                       r'are \d+; .*--force_labels'):
      fit(label_file(labels), source)
  assert '--noise_file=f' in str(e.value)
  assert fit(label_file(labels), source, force=True) is labels


@pytest.mark.parametrize('coarse', [
    lambda x: x // 2, lambda x: x // 5, np.zeros_like])
def test_a_coarser_set_of_classes_is_found_out(coarse):
  labels = coarse(CLEAN)
  with pytest.raises(UserError, match=f'it uses {labels.max() + 1} classes where '
                                      'the images have 10'):
    fit(label_file(labels))


def test_ids_give_the_order_or_contradict_it():
  shuffled = [IDS[k] for k in INDEX]
  by_id = label_file(WORSE[INDEX], CLEAN[INDEX], ids=shuffled)
  np.testing.assert_array_equal(fit(by_id, ids=IDS), WORSE)
  # Elsewhere the folder had another place, other separators, another form.
  for change in (lambda x: '/home/me/data/' + x, lambda x: x.split('/', 1)[1],
                 lambda x: x.split('/')[-1], lambda x: x.replace('/', '\\')):
    found = by_id._replace(ids=list(map(change, shuffled)))
    np.testing.assert_array_equal(fit(found, ids=IDS), WORSE)
  with pytest.raises(UserError, match="contradict each other in .* index 0 is "
                                      f"'{IDS[0]}', not '{shuffled[0]}'"):
    fit(by_id._replace(has_index=True, labels=WORSE, clean=CLEAN), ids=IDS)
  for wrong in (['x.png'] + shuffled[1:], [shuffled[1]] + shuffled[1:]):
    with pytest.raises(UserError, match='it names 1999 of the 2000, each of '
                                        'which must be there once'):
      fit(by_id._replace(ids=wrong), ids=IDS)
    with pytest.raises(UserError, match='it names 1999 of the 2000'):
      fit(by_id._replace(ids=wrong, has_index=True), ids=IDS)
  # Names from elsewhere beside an index say nothing.
  foreign = label_file(WORSE, ids=[f'a_{k}.jpg' for k in range(N)])
  assert fit(foreign._replace(has_index=True), ids=IDS) is WORSE
  with pytest.raises(UserError, match="it names 0 of .* and 'a_0.jpg'; the "
                                      f"images are like '{IDS[0]}'"):
    fit(foreign, ids=IDS)


def test_few_clean_labels_are_checked_too():
  order = RANDOM.permutation(204)
  source = CLEAN[:204]
  with pytest.raises(UserError, match='of its 204 clean labels are not those'):
    fit(label_file(WORSE[order], source[order]), source)


@pytest.mark.parametrize('change, words', [
    (lambda x: x[:-1], '1999 labels; there are 2000'),
    (lambda x: np.append(x, 0), '2001 labels; there are 2000'),
    (lambda x: np.where(np.arange(N) == 7, 10, x), 'entry 7.* is 10; .*0 to 9'),
    (lambda x: np.where(np.arange(N) == 8, -1, x), 'entry 8.* is -1')])
def test_labels_that_do_not_fit(change, words):
  for labels, clean in ((change(WORSE), None), (change(WORSE), CLEAN),
                        (WORSE, change(CLEAN))):
    with pytest.raises(UserError, match=words):
      fit(label_file(labels, clean))
