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
    ('{"x": "' + 'x' * (4 << 20) + '"}', 'more than 4 MiB')])
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
  check = lambda: noise_facts.check_same(data_dir, run, 'elsewhere')
  with pytest.raises(UserError, match='began with --data_dir=elsewhere; without '
                                      f'a noise.json, .*--data_dir={data_dir}'):
    check()
  for same in (data_dir, data_dir + '/', data_dir + '/../data'):
    noise_facts.check_same(data_dir, run, same)
  for seed in (0, 1):
    (tmp_path / 'data' / 'noise.json').write_text(
        json.dumps({'seed': seed, 'rate_asked': 0.4}))
    if not seed:
      noise_facts.copy_facts(data_dir, run)
      check()
  with pytest.raises(UserError, match='noise.json differs in seed; restore'):
    check()
