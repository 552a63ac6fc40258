"""The baselines, from the flags to the evaluation of what they have trained."""
import cifar_eval
import numpy as np
import pytest
import score_labels

from mentormix import config as config_lib
from mentormix import testing
from mentormix.data import input_pipeline
from mentormix.evaluation import results as results_lib
from mentormix.runtime import tf

BASELINES = [m for m in config_lib.METHODS
             if m not in config_lib.WEIGHTED + ('cross_entropy', 'mixup')]
STATE = {'s_model': 'method_state/noise_logits', 'elr': 'method_state/targets'}


def _evaluate(digits, run, eval_dir):
  code, _, err = testing.run_command(cifar_eval, '--once', *testing.to_flags(
      data_dir=digits + '/val', checkpoint_dir=run, eval_dir=eval_dir,
      device_id=''))
  assert code == 0, err
  return [(r.step, r.top1, r.loss)
          for r in results_lib.read(str(eval_dir / 'results.csv'))]


@pytest.mark.parametrize('method', BASELINES)
def test_train_and_evaluate(train, digits, tmp_path, method):
  """Without a MentorNet; what a method remembers is in the checkpoint."""
  run = tmp_path / 'train'
  code, _, err = train(
      train_log_dir=run, method=method, trained_mentornet_dir='',
      max_number_of_steps=2, dropout=0.5, save_summaries_secs=1,
      loss_csv_file=tmp_path / 'losses.csv')
  assert code == 0, err
  assert [row[0] for row in _evaluate(digits, run, tmp_path / 'eval')] == [0, 2]
  state = [name for name in testing.weights(run)
           if name.startswith('method_state/')]
  assert (STATE.get(method) in state) == bool(state) == (method in STATE)


def test_evaluation_and_scores_ignore_the_noise_layer(train, digits, tmp_path):
  """They are the same with another one."""
  run = tmp_path / 'train'
  assert train(train_log_dir=run, method='s_model').code == 0
  found = []
  for name in ('as it is', 'changed'):
    if name == 'changed':
      values = testing.weights(run)
      values[STATE['s_model']] = values[STATE['s_model']][::-1].copy()
      with tf.Graph().as_default(), tf.Session() as session:
        for key, value in values.items():
          tf.get_variable(key, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(run / 'model.ckpt'), 3,
                              write_meta_graph=False)
    code, _, err = testing.run_command(score_labels, *testing.to_flags(
        data_dir=digits + '/0.4', checkpoint_dir=run, device_id='',
        output_dir=tmp_path / name / 'scores'))
    assert code == 0, err
    found.append([_evaluate(digits, run, tmp_path / name / 'eval')[-1],
                  (tmp_path / name / 'scores' / 'scores.csv').read_text()])
  assert found[0] == found[1]


def test_a_noise_layer_starts_beside_pretrained_weights(train, tmp_path):
  args = dict(max_number_of_steps=1)
  assert train(train_log_dir=tmp_path / 'a', method='cross_entropy',
               **args).code == 0
  code, out, err = train(train_log_dir=tmp_path / 'b', method='s_model',
                         checkpoint_path=tmp_path / 'a', **args)
  assert code == 0, err
  assert 'initial values: none' in out


@pytest.mark.parametrize('flag,value', [
    ('method', 'elr'), ('first_pass_interval_epochs', 2)])
def test_examples_that_it_cannot_remember(flag, value, train, tmp_path,
                                          monkeypatch):
  args = dict({'train_log_dir': tmp_path / 'train', 'method': 'mentormix',
               flag: value})
  testing.assert_one_line(train(master='grpc://localhost:1', **args), 2,
                          f'--{flag}={value}', 'in one process')
  monkeypatch.setattr(input_pipeline, 'MOST_IN_MEMORY', 1)
  testing.assert_one_line(train(**args), 2, f'--{flag}={value}',
                          'give another value')
  assert not list(tmp_path.rglob('model.ckpt*'))


def test_elr_remembers_every_example_it_has_seen(train, tmp_path):
  """Three steps of 16 different examples; each then sums to 1 - beta."""
  assert train(train_log_dir=tmp_path, method='elr', elr_beta=0.75).code == 0
  sums = testing.weights(tmp_path)[STATE['elr']].sum(axis=1)
  np.testing.assert_allclose(sums[sums > 0], np.full(3 * 16, 0.25), rtol=1e-5)
