"""The published rows, what a preset fills in, and where it must not."""
import json
import os
import shlex
import subprocess
import sys

import pytest

from mentormix import config as config_lib
from mentormix import presets
from mentormix.messages import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def _fill(data_dir, preset='published', given=(), **settings):
  config = config_lib.TrainConfig(data_dir=str(data_dir), **settings)
  return presets.fill(config, preset, set(given) | set(settings))


@pytest.mark.parametrize('name,level,alpha,p,second', [
    ('cifar10', 0.2, 2, 0.8, False), ('cifar10', 0.4, 8, 0.6, False),
    ('cifar10', 0.6, 8, 0.6, True), ('cifar10', 0.8, 4, 0.2, True),
    ('cifar100', 0.2, 2, 0.7, False), ('cifar100', 0.4, 8, 0.5, False),
    ('cifar100', 0.6, 4, 0.3, True), ('cifar100', 0.8, 8, 0.1, True),
    ('mini_imagenet_red', 0.2, 2, 0.7, False),
    ('mini_imagenet_red', 0.4, 8, 0.5, False),
    ('mini_imagenet_red', 0.6, 4, 0.3, False),
    ('mini_imagenet_red', 0.8, 8, 0.1, False)])
def test_the_published_rows(name, level, alpha, p, second):
  config, line = _fill(f'data/{name}/{level:g}', dataset_name=name)
  assert config.mixup_alpha == alpha
  assert config.loss_p_percentile == p
  assert config.second_reweight == second
  assert config.max_number_of_steps == 200000
  assert config.batch_size == 128
  assert config.burn_in_epoch == 10
  assert config.num_epochs_per_decay == 30
  assert config.trained_mentornet_dir.endswith('mentornet_models/mentornet_pd')
  assert f'--mixup_alpha={alpha:g}.0' in line
  assert f'--preset=published, {name} at noise {level:g}:' in line


def test_the_command_line_wins():
  config, line = _fill('data/cifar10/0.4', dataset_name='cifar10',
                       mixup_alpha=3.0, max_number_of_steps=7)
  assert (config.mixup_alpha, config.max_number_of_steps) == (3, 7)
  assert 'mixup_alpha' not in line and 'max_number_of_steps' not in line
  # Also where it says what is the default anyway.
  config, _ = _fill('data/cifar10/0.4', dataset_name='cifar10',
                    given=['second_reweight'])
  assert config.second_reweight


@pytest.mark.parametrize('method,filled,left', [
    ('cross_entropy', ['batch_size'], ['mixup_alpha', 'burn_in_epoch']),
    ('mixup', ['mixup_alpha'], ['loss_p_percentile', 'second_reweight']),
    ('mentornet', ['loss_p_percentile', 'trained_mentornet_dir'],
     ['mixup_alpha', 'second_reweight']),
    ('co_teaching', ['forget_rate', 'studentnet'],
     ['trained_mentornet_dir', 'noise_rate', 'elr_beta'])])
def test_only_what_the_method_uses_is_filled(method, filled, left):
  config, line = _fill('data/cifar10/0.4', dataset_name='cifar10',
                       method=method)
  assert all(f'--{name}=' in line for name in filled)
  assert not any(name in line for name in left)
  for name in left:
    assert getattr(config, name) == getattr(config_lib.TrainConfig(), name)


@pytest.mark.parametrize('name,level,method,filled', [
    ('cifar10', 0.4, 's_model', dict(noise_rate=0.4)),
    ('cifar10', 0.4, 'co_teaching', dict(forget_rate=0.4)),
    ('cifar10', 0.8, 'co_teaching', dict(forget_rate=0.5)),
    ('cifar10', 0.4, 'elr', dict(elr_lambda=3.0, elr_beta=0.7)),
    ('cifar100', 0.4, 'elr', dict(elr_lambda=7.0, elr_beta=0.9))])
def test_what_the_baselines_get(name, level, method, filled):
  config, line = _fill(f'data/{name}/{level}', dataset_name=name, method=method)
  for setting, value in filled.items():
    assert getattr(config, setting) == value
    assert f'--{setting}={value}' in line


@pytest.mark.parametrize('facts,alpha', [
    ({'rate_asked': 0.6, 'rate_realised': 0.54}, 8),
    ({'rate_asked': None, 'rate_realised': 0.172}, 2),
    ({'rate_asked': 0.75}, 4)])
def test_the_noise_level_is_that_of_the_data(tmp_path, facts, alpha):
  facts['dataset_name'] = 'cifar10'
  (tmp_path / 'noise.json').write_text(json.dumps(facts))
  config, _ = _fill(tmp_path)
  assert config.dataset_name == 'cifar10'  # Known from there, too.
  assert config.mixup_alpha == alpha


@pytest.mark.parametrize('data_dir,name,message', [
    ('data/cifar10/mine', 'cifar10', 'unknown noise level .--data_dir=.*mine'),
    ('data/cifar10/0.05', 'cifar10', 'nothing for cifar10 at noise 0.05'),
    ('data/digits/0.4', 'digits', 'nothing for digits at noise 0.4 .*; it has '
     'cifar10, cifar100, mini_imagenet_red at 0.2, 0.4, 0.6, 0.8'),
    ('data/cifar10/nan', 'cifar10', 'unknown noise level')])
def test_where_there_is_no_row(data_dir, name, message):
  with pytest.raises(UserError, match=message):
    _fill(data_dir, dataset_name=name)


def test_the_cpu_preset_serves_every_data_set():
  for name in ('cifar10', 'digits'):
    config, _ = _fill(f'data/{name}/0.4', 'cpu', dataset_name=name)
    assert config.studentnet.endswith('_thin')
    config_lib.validate(config._replace(train_log_dir='log'))


@pytest.mark.parametrize('level,p', [
    (0, 0.8), (0.3, 0.7), (0.4, 0.6), (0.6, 0.5), ('unknown', 0.6)])
def test_the_cpu_percentile(level, p):
  config, _ = _fill(f'data/digits/{level}', 'cpu', dataset_name='digits')
  assert config.loss_p_percentile == p


def test_it_finds_the_mentornet_from_everywhere(tmp_path, monkeypatch):
  """Here, then in the repository, then as installed."""
  def found():
    return _fill('0.4', 'cpu', dataset_name='digits')[0].trained_mentornet_dir

  monkeypatch.chdir(tmp_path)
  assert os.path.isfile(found() + '/mentornet.pb')
  package = tmp_path / 'mentormix'
  (package / 'mentornet_models' / 'mentornet_pd').mkdir(parents=True)
  monkeypatch.setattr(presets, '_PACKAGE', str(package))
  assert found() == os.path.join(ROOT, 'mentornet_models', 'mentornet_pd')
  monkeypatch.setattr(presets, '_ROOT', str(tmp_path / 'python3.7'))
  assert found() == str(package / 'mentornet_models' / 'mentornet_pd')
  monkeypatch.setattr(presets, '_PACKAGE', str(package) + ' of me')
  package.rename(str(package) + ' of me')
  _, line = _fill('0.4', 'cpu', dataset_name='digits')
  assert f'--trained_mentornet_dir={found()}' in shlex.split(line)
  (tmp_path / 'mentornet_models' / 'mentornet_pd').mkdir(parents=True)
  assert found() == os.path.join('mentornet_models', 'mentornet_pd')


def test_the_mentornets_are_installed():
  """What `pip install .` copies holds the one that the presets name."""
  program = (
      'import distutils.core\n'
      'build = distutils.core.run_setup("setup.py", stop_after="init"'
      ').get_command_obj("build_py")\n'
      'build.ensure_finalized(); print(*build.get_outputs(), sep="\\n")')
  out = subprocess.check_output(
      [sys.executable, '-c', 'import setuptools\n' + program], cwd=ROOT,
      universal_newlines=True).splitlines()
  for name in ('presets.py', 'mentornet_models/mentornet_pd/mentornet.pb',
               'mentornet_models/self_paced/mentornet.pb'):
    assert any(line.endswith('mentormix/' + name) for line in out), out


@pytest.mark.parametrize('facts,name', [
    ({'dataset_name': ['a'], 'rate_asked': 'x'}, 'cifar100'),
    ({'dataset_name': 'birds', 'rate_asked': None, 'rate_realised': None},
     'birds')])
def test_the_noise_is_not_known(tmp_path, facts, name):
  directory = tmp_path / '0'  # Of custom images, the name says nothing.
  directory.mkdir()
  (directory / 'noise.json').write_text(json.dumps(facts))
  config, line = _fill(directory, 'cpu')
  assert (config.dataset_name, config.loss_p_percentile) == (name, 0.6)
  assert f', {name} at an unknown noise level (assumed: 0.4): ' in line


def test_published_accuracy():
  find = presets.published_accuracy
  assert find('cifar10', 0.4, 'mentormix') == (94.2, 94.4)
  assert find('cifar100', 0.8, 'mentormix') == (41.2, 39.2)
  assert find('cifar10', 0.6, 'mentornet') == (74.2, None)
  assert find('cifar10', 0.4, 'cross_entropy') == (None, None)
  assert find('digits', 0.4, 'mentormix') == (None, None)
  assert [find('mini_imagenet_red', level, 'mentormix')[1]
          for level in presets.LEVELS] == [51.02, 47.14, 43.80, 33.46]
  assert find('mini_imagenet_red', 0.4, 'mixup') == (None, None)


def test_published_images_have_32_pixels(tmp_path):
  facts = {'dataset_name': 'mini_imagenet_red', 'rate_asked': 0.4}
  for size in (32, 84):
    (tmp_path / 'noise.json').write_text(json.dumps(
        dict(facts, image_size=size)))
    if size == 32:
      assert _fill(tmp_path)[0].loss_p_percentile == 0.5
    else:
      with pytest.raises(UserError, match='at 32 x 32, not 84 x 84'):
        _fill(tmp_path)


def test_photographs_have_the_published_size_unless_another_is_given(tmp_path):
  (tmp_path / 'noise.json').write_text(json.dumps({
      'dataset_name': 'mini_imagenet_red', 'rate_asked': 0.6,
      'image_size': None, 'photographs': True}))
  for size in (0, 32):
    config, _ = _fill(tmp_path, image_size=size)
    assert (config.studentnet, config.loss_p_percentile) == ('resnet32', 0.3)
    assert not config.second_reweight and config.image_recipe == 'cifar'
  config, _ = _fill(tmp_path, image_recipe='ncr')
  assert config.image_recipe == 'ncr'
  with pytest.raises(UserError, match='at 32 x 32, not 224 x 224'):
    _fill(tmp_path, image_size=224)


@pytest.mark.parametrize('preset,facts,steps,warmup,p', [
    ('ncr', {'rate_asked': 0.4}, 130 * 390, 5 * 390, 0.6),  # Red.
    ('ncr', {'rate_asked': 0.4, 'num_examples': 60000}, 130 * 468, 5 * 468,
     0.6),
    ('mini_webvision', {}, 200 * 1030, 0, 0.85),
    ('webvision', {}, 60 * 4764, 0, 0.85),
    ('finetune', {'num_examples': 6400, 'rate_asked': 0.2}, 2000, 100, 0.8)])
def test_recipes(tmp_path, preset, facts, steps, warmup, p):
  (tmp_path / 'noise.json').write_text(json.dumps(
      dict(facts, dataset_name='mine')))
  config, line = _fill(tmp_path, preset)
  assert config.max_number_of_steps == steps
  assert config.warmup_steps == warmup
  assert config.loss_p_percentile == p
  assert config.weight_decay == (0.0005 if preset == 'ncr' else 0.00004)
  assert config.learning_rate_schedule == (
      'steps' if 'webvision' in preset else 'cosine')
  assert not config.second_reweight
  assert 'ours' in line or 'our settings' in line
  config_lib.validate(config._replace(train_log_dir='log'))
  # Epochs follow the batch size that is given.
  config, _ = _fill(tmp_path, preset, batch_size=16)
  assert config.max_number_of_steps > 2 * steps


@pytest.mark.parametrize('count,size,rate', [
    (50000, 500, 0.3), (10000, 500, 0.3), (2000, 100, 0.06), (60, 32, 0.0192)])
def test_the_fast_preset(tmp_path, count, size, rate):
  """Few examples get smaller batches and a lower rate."""
  (tmp_path / 'noise.json').write_text(json.dumps(
      dict(dataset_name='mine', num_examples=count, rate_realised=0.8)))
  config, line = _fill(tmp_path, 'fast')
  assert (config.batch_size, config.learning_rate) == (size, rate)
  steps = max(1, count // size)
  assert config.max_number_of_steps == 70 * steps
  assert config.warmup_steps == 14 * steps
  assert config.first_pass_interval_epochs == 2
  assert config.loss_p_percentile == 0.5 and config.burn_in_epoch == 5
  assert (config.studentnet, config.augmentation) == ('fast', 'light')
  assert config.learning_rate_schedule == 'linear' and config.nesterov
  assert 'ours' in line
  config_lib.validate(config._replace(train_log_dir='log'))
  # A shorter run warms up for as large a part of it.
  config, _ = _fill(tmp_path, 'fast', max_number_of_steps=100, batch_size=50)
  assert (config.max_number_of_steps, config.warmup_steps) == (100, 20)
  assert config.learning_rate == 0.03
  config, _ = _fill(tmp_path, 'fast', method='cross_entropy')
  assert config.batch_size == size


def test_fine_tuning_has_to_know_how_long_it_is(tmp_path):
  with pytest.raises(UserError, match='give --max_number_of_steps'):
    _fill(tmp_path / '0.4', 'finetune', dataset_name='cifar10')
  settings = dict(dataset_name='cifar10', max_number_of_steps=9)
  config, line = _fill(tmp_path / '0.4', 'finetune', **settings)
  assert (config.max_number_of_steps, config.learning_rate) == (9, 0.01)
  assert 'without --checkpoint_path, so from scratch' in line
  _, line = _fill(tmp_path / '0.4', 'finetune', checkpoint_path='x', **settings)
  assert 'scratch' not in line
