"""Tests of noise.json."""
import json
import os

import pytest

from mentormix.data import noise
from mentormix.data import noise_facts
from mentormix.messages import UserError


@pytest.mark.parametrize('text,words', [
    ('', 'cannot be read'), ('[1]', 'does not hold the facts'),
    ('{"x": -NaN}', 'cannot be read'), ('[' * 100000, 'cannot be read'),
    ('{"x": "' + 'x' * (4 << 20) + '"}', 'more than 4 MiB'),
    ('{"num_classes": 1}', 'num_classes is 1, not a whole number from 2 to '),
    ('{"num_classes": 1000001}', 'num_classes is 1000001, not'),
    ('{"num_classes": true}', 'num_classes is True, not'),
    ('{"num_classes": 10.0}', 'num_classes is 10.0, not'),
    ('{"num_classes": null}', 'num_classes is None, not'),
    ('{"num_classes": [' + '1, ' * 999 + '2]}', 'num_classes is .1, .*, not'),
    ('{"image_size": 0}', 'image_size is 0, not a whole number from 1 to 10000;'
                          ' make the data set again'),
    ('{"image_size": 10001}', 'image_size is 10001, not'),
    ('{"image_size": "' + '8' * 999 + '"}', 'image_size is .8+, not')])
def test_damaged_facts(tmp_path, text, words):
  (tmp_path / noise_facts.FACTS_FILE).write_text(text)
  with pytest.raises(UserError, match='noise.json.*' + words) as error:
    noise_facts.read_facts(str(tmp_path))
  assert len(str(error.value)) < 400


def test_facts_are_read(tmp_path):
  assert noise_facts.read_facts(str(tmp_path)) is None
  facts = {'seed': noise.MAX_SEED, 'r': 0.1, 'num_classes': 2,
           'image_size': 10000}
  (tmp_path / noise_facts.FACTS_FILE).write_text(json.dumps(facts))
  assert noise_facts.read_facts(str(tmp_path)) == facts


def test_a_run_is_resumed_only_with_its_data(tmp_path):
  data_dir, run = str(tmp_path / 'data'), str(tmp_path / 'run')
  os.mkdir(data_dir)
  os.mkdir(run)
  noise_facts.check_same(data_dir, run)  # Data without a noise.json.
  for seed in (0, 1):
    (tmp_path / 'data' / 'noise.json').write_text(
        json.dumps({'seed': seed, 'rate_asked': 0.4}))
    if not seed:
      noise_facts.check_same(data_dir, run)
      noise_facts.copy_facts(data_dir, run)
      noise_facts.check_same(data_dir, run)
  with pytest.raises(UserError, match='noise.json differs in seed; restore'):
    noise_facts.check_same(data_dir, run)
