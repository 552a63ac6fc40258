"""Settings: ranges, saving, going on, and what evaluation takes from them."""
import json
import os

import pytest

from mentormix import config as config_lib
from mentormix import eval_settings
from mentormix import settings
from mentormix.messages import UserError

GOOD = config_lib.TrainConfig(data_dir='data', train_log_dir='log',
                              trained_mentornet_dir='mentor')


def test_defaults_are_the_published_ones():
  published = dict(
      batch_size=128, master='', dataset_name='cifar100',
      studentnet='resnet32', learning_rate=0.1, learning_rate_decay_factor=0.9,
      num_epochs_per_decay=3, save_summaries_secs=120, save_interval_secs=1200,
      max_number_of_steps=100000, ps_tasks=0, task=0, device_id='0',
      example_dropout_rates='0.0,100', burn_in_epoch=0, loss_p_percentile=0.7,
      mixup_alpha=8.0, second_reweight=True)
  config = config_lib.TrainConfig()._asdict()
  assert {name: config[name] for name in published} == published
  evaluation = config_lib.EvalConfig()
  assert evaluation.batch_size == 25
  assert evaluation.eval_interval_secs == 600
  assert evaluation.split_name == 'test'


def test_good_settings_pass():
  config_lib.validate(GOOD)
  config_lib.validate(GOOD._replace(mixup_alpha=0.0, burn_in_epoch=100,
                                    loss_p_percentile=0.0, seed=2**32 - 1,
                                    batch_size=2**31 - 1))
  config_lib.validate(GOOD._replace(method='cross_entropy',
                                    trained_mentornet_dir=''))


@pytest.mark.parametrize('name,value', [
    ('batch_size', 0), ('batch_size', -1), ('max_number_of_steps', 0),
    ('weight_decay', -0.5), ('weight_decay', -2.0), ('microbatches', 0),
    ('dropout', -0.5), ('dropout', 1.0), ('bootstrap_beta', -0.1),
    ('bootstrap_beta', 1.1), ('noise_rate', 1.0), ('noise_rate', -0.1),
    ('gce_q', 0.0), ('gce_q', 1.1), ('elr_lambda', -1.0), ('elr_beta', 1.0),
    ('forget_rate', 1.0), ('forget_rate', -0.1),
    ('microbatches', 3), ('learning_rate_schedule', 'sine'),
    ('num_readers', 0), ('num_preprocessing_threads', 0),
    ('save_interval_secs', 0), ('save_summaries_secs', -1),
    ('learning_rate', 0.0), ('learning_rate', float('nan')),
    ('learning_rate', float('inf')), ('learning_rate_decay_factor', -0.1),
    ('num_epochs_per_decay', 0.0), ('loss_p_percentile', 1.5),
    ('loss_p_percentile', -0.1), ('loss_p_percentile', float('nan')),
    ('burn_in_epoch', 101), ('burn_in_epoch', -1), ('mixup_alpha', -1.0),
    ('mixup_alpha', float('nan')), ('mixup_alpha', float('inf')),
    ('method', 'magic'), ('data_dir', ''), ('train_log_dir', ''),
    ('trained_mentornet_dir', ''), ('seed', -1), ('task', -1),
    ('ps_tasks', -1), ('batch_size', 10**30), ('num_readers', 10**30),
    ('max_number_of_steps', 10**30), ('seed', 10**30), ('seed', 2**32),
    ('train_log_dir', 'run*'),  # TensorFlow would see a pattern.
])
def test_a_value_out_of_range_is_named(name, value):
  with pytest.raises(UserError, match=f'--{name}='):
    config_lib.validate(GOOD._replace(**{name: value}))


@pytest.mark.parametrize('name,value', [
    ('batch_size', 0), ('eval_interval_secs', 0), ('checkpoint_dir', ''),
    ('eval_dir', ''), ('data_dir', ''), ('data_dir', '/nowhere/at/all'),
    ('split_name', 'valid'), ('batch_size', 10**30), ('checkpoint_dir', 'a[')])
def test_evaluation_values_are_checked(name, value, tmp_path):
  good = config_lib.EvalConfig(data_dir=str(tmp_path), checkpoint_dir='c',
                               eval_dir='e')
  config_lib.validate_eval(good)
  with pytest.raises(UserError, match=f'--{name}='):
    config_lib.validate_eval(good._replace(**{name: value}))


def test_save_and_load(tmp_path):
  """Also names of files that are not UTF-8."""
  assert config_lib.load(str(tmp_path)) is None
  config = GOOD._replace(data_dir=os.fsdecode(b'\xff'))
  config_lib.save(config, str(tmp_path))
  assert config_lib.load(str(tmp_path)) == dict(config._asdict())
  assert config_lib.restore(str(tmp_path)) == config
  assert os.listdir(str(tmp_path)) == [config_lib.CONFIG_FILE]


@pytest.mark.parametrize('text', ['', '{', '[1]', '3'])
def test_damaged_file(tmp_path, text):
  (tmp_path / config_lib.CONFIG_FILE).write_text(text)
  with pytest.raises(UserError, match='config.json'):
    config_lib.load(str(tmp_path))


def test_a_run_goes_on_only_with_its_settings(tmp_path):
  config = GOOD._replace(train_log_dir=str(tmp_path))
  config_lib.check_resume(config)  # Nothing there.
  config_lib.save(config, str(tmp_path))
  config_lib.check_resume(config._replace(max_number_of_steps=5,
                                          device_id='1'))
  assert config_lib.check_resume(
      config._replace(listen_on_all_interfaces=True)) == [
          '--listen_on_all_interfaces is False there, True here']
  with pytest.raises(UserError, match='--mixup_alpha is 8.0 there, 2.0 here.*'
                                      '--studentnet is resnet32 there'):
    config_lib.check_resume(config._replace(mixup_alpha=2.0,
                                            studentnet='resnet8_thin'))


def test_settings_that_an_earlier_version_saved_are_ignored(tmp_path):
  config = GOOD._replace(train_log_dir=str(tmp_path))
  earlier = dict(config._asdict(), bind_address='127.0.0.1')
  del earlier['listen_on_all_interfaces']
  (tmp_path / config_lib.CONFIG_FILE).write_text(json.dumps(earlier))
  assert config_lib.restore(str(tmp_path)) == config
  assert config_lib.check_resume(
      config._replace(listen_on_all_interfaces=True)) == []


def test_a_setting_that_an_earlier_version_lacked_has_its_default(tmp_path):
  config = GOOD._replace(train_log_dir=str(tmp_path))
  earlier = {name: value for name, value in config._asdict().items()
             if name not in ('weight_decay', 'microbatches', 'checkpoint_path',
                             'trainable_scopes', 'learning_rate_schedule')}
  (tmp_path / config_lib.CONFIG_FILE).write_text(json.dumps(earlier))
  assert config_lib.restore(str(tmp_path)) == config
  assert config_lib.check_resume(config) == []
  assert config_lib.check_resume(config._replace(checkpoint_path='a')) == []
  with pytest.raises(UserError, match='--microbatches is 1 there, 2 here'):
    config_lib.check_resume(config._replace(microbatches=2))


def test_a_run_goes_on_only_with_its_mentornet(tmp_path):
  config = GOOD._replace(train_log_dir=str(tmp_path))
  config_lib.save(config, str(tmp_path))  # As an earlier version did.
  assert config_lib.check_resume(config, 'abc') == []
  config_lib.save(config, str(tmp_path), mentornet_md5='abc', started=3.5)
  assert config_lib.load(str(tmp_path))['started'] == 3.5
  assert config_lib.check_resume(config, 'abc') == []
  with pytest.raises(UserError, match='--trained_mentornet_dir=.* now holds '
                     'another MentorNet .md5 abd, not abc.'):
    config_lib.check_resume(config, 'abd')


def test_the_same_files_under_another_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('d/0.4', 'models/pd'):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'losses.csv').write_text('x')
  config = GOOD._replace(
      train_log_dir='run', data_dir='d/0.4', trained_mentornet_dir='models/pd',
      loss_csv_file='losses.csv')
  (tmp_path / 'run').mkdir()
  config_lib.save(config, 'run', mentornet_md5='abc')
  for path in ('d/0.4/', './d/0.4', str(tmp_path / 'd' / '0.4')):
    assert config_lib.check_resume(config._replace(
        data_dir=path, trained_mentornet_dir='models/../models/pd',
        loss_csv_file='./losses.csv'), 'abc') == []
  # Moved together with what they hold; noise_facts.check_same compares data.
  (tmp_path / 'd').rename(tmp_path / 'e')
  (tmp_path / 'models').rename(tmp_path / 'm')
  (tmp_path / 'losses.csv').rename(tmp_path / 'l.csv')
  moved = config._replace(data_dir='e/0.4', trained_mentornet_dir='m/pd',
                          loss_csv_file='l.csv')
  assert [line.split()[0] for line in config_lib.check_resume(
      moved, 'abc')] == ['--data_dir', '--loss_csv_file',
                         '--trained_mentornet_dir']
  with pytest.raises(UserError, match='--loss_csv_file is losses.csv there'):
    config_lib.check_resume(moved._replace(loss_csv_file='none.csv'), 'abc')
  with pytest.raises(UserError, match='--trained_mentornet_dir is models/pd'):
    config_lib.check_resume(moved, 'abd')


def test_formulas_are_told_apart_by_name(tmp_path):
  config = GOOD._replace(train_log_dir=str(tmp_path),
                         trained_mentornet_dir='threshold')
  config_lib.save(config, str(tmp_path), mentornet_md5='')
  with pytest.raises(UserError, match='--trained_mentornet_dir is threshold'):
    config_lib.check_resume(config._replace(
        trained_mentornet_dir='v_star:focal'), '')


def test_evaluation_takes_what_the_run_was_trained_with(tmp_path):
  run = GOOD._replace(dataset_name='digits', studentnet='resnet8_thin',
                      max_number_of_steps=7)
  open_ended = config_lib.EvalConfig(checkpoint_dir=str(tmp_path))
  resolved, saved = config_lib.resolve_eval(open_ended)
  assert (resolved.dataset_name, resolved.studentnet) == ('cifar100',
                                                          'resnet32')
  assert saved == {}
  config_lib.save(run, str(tmp_path))
  resolved, saved = config_lib.resolve_eval(open_ended)
  assert (resolved.dataset_name, resolved.studentnet) == ('digits',
                                                          'resnet8_thin')
  assert saved['max_number_of_steps'] == 7
  with pytest.raises(UserError, match='resnet32.*resnet8_thin'):
    config_lib.resolve_eval(open_ended._replace(studentnet='resnet32'))


ODD = [('batch_size', [128]), ('batch_size', True), ('batch_size', 1.5),
       ('seed', '0'), ('learning_rate', '0.1'), ('learning_rate', None),
       ('xla', 0), ('studentnet', ['resnet32']), ('dataset_name', 3),
       ('dataset_name', {}), ('max_number_of_steps', [[1]]),
       ('started', 'now'), ('mentornet_md5', 3)]


@pytest.mark.parametrize('name,value', ODD)
def test_odd_types(tmp_path, name, value):
  directory = str(tmp_path)
  settings = dict(GOOD._asdict(), **{name: value})
  (tmp_path / config_lib.CONFIG_FILE).write_text(json.dumps(settings))
  for use in (
      lambda: config_lib.restore(directory),
      lambda: config_lib.check_resume(GOOD._replace(train_log_dir=directory)),
      lambda: config_lib.resolve_eval(
          config_lib.EvalConfig(checkpoint_dir=directory))):
    with pytest.raises(UserError, match=r'config.json does not hold the '
                       rf'settings of a run \(see {name}\)'):
      use()


def test_whole_numbers_are_bounded():
  for name in 'batch_size', 'num_readers', 'max_number_of_steps', 'seed':
    with pytest.raises(UserError, match=f'--{name}=10+ must be .* at most'):
      config_lib.validate(GOOD._replace(**{name: 10**30}))
  config_lib.validate(GOOD._replace(seed=2**32 - 1, batch_size=2**31 - 1))
  with pytest.raises(UserError, match='--batch_size=10+ must be .* at most'):
    config_lib.validate_eval(config_lib.EvalConfig(
        data_dir='d', checkpoint_dir='c', eval_dir='e', batch_size=10**30))


def test_the_evaluator_of_a_cluster(tmp_path):
  run = GOOD._replace(data_dir=str(tmp_path / '0.4'), save_interval_secs=100,
                      train_log_dir=str(tmp_path / 'run' / 'train'))
  with pytest.raises(UserError, match='expects the test set in .*val'):
    config_lib.eval_of(run)
  (tmp_path / 'val').mkdir()
  evaluation = config_lib.eval_of(run)
  config_lib.validate_eval(evaluation)
  assert evaluation.data_dir == str(tmp_path / 'val')
  assert evaluation.eval_dir == str(tmp_path / 'run' / 'eval')
  assert evaluation.timeout == 800  # After --cluster_timeout and two saves.
  other = config_lib.eval_of(run._replace(train_log_dir='log',
                                          cluster_timeout=0))
  assert other.eval_dir.endswith('log-eval') and other.timeout == 0


def test_every_setting_is_explained_and_its_default_is_valid():
  for setting in settings.TRAIN_SETTINGS + eval_settings.EVAL_SETTINGS:
    assert setting.help.endswith('.'), setting.name
    setting.check(setting.default)


def test_what_the_tasks_of_a_cluster_share():
  shared = config_lib.shared_by_tasks(GOOD)
  assert {'seed', 'max_number_of_steps', 'batch_size'} <= set(shared)
  assert not {'data_dir', 'train_log_dir', 'task', 'loss_csv_file',
              'trained_mentornet_dir', 'save_interval_secs'} & set(shared)
