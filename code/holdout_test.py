"""From a hold-out to two accuracies at the same steps, by the commands."""
import csv

import cifar_eval
import cifar_train_mentormix
import prepare_data

from mentormix import testing
from mentormix.reports import runs


def test_every_checkpoint_is_evaluated_on_both_sets(tmp_path):
  """More checkpoints than are kept by time; in two parts, the first stopped."""
  train = dict(
      dataset_name='digits', data_dir='out/0.4', train_log_dir='run/train',
      method='cross_entropy', studentnet='resnet8_thin', batch_size=4,
      save_interval_steps=4, save_summaries_secs=0)
  commands = [(prepare_data, dict(
      dataset_name='digits', noise_levels=0.4, num_train=40, holdout=0.25,
      num_shards=2, output_dir='out'))]
  commands += [(cifar_train_mentormix, dict(train, max_number_of_steps=steps))
               for steps in (9, 16)]
  commands += [(cifar_eval, dict(
      checkpoint_dir='run/train', data_dir=f'out/{data}', batch_size=200,
      eval_dir=f'run/{to}', once=True))
               for data, to in (('val', 'eval'), ('0.4_holdout', 'holdout'))]
  for module, flags in commands:
    code, _, err = testing.run_command(module, *testing.to_flags(**flags),
                                       cwd=tmp_path)
    assert code == 0, err
  for to, count in (('eval', 400), ('holdout', 10)):
    with open(str(tmp_path / 'run' / to / 'results.csv')) as f:
      rows = list(csv.DictReader(f))
    # 9: the first part ended there.
    assert [int(row['step']) for row in rows] == [0, 4, 8, 9, 12, 16]
    assert {int(row['count']) for row in rows} == {count}
  testing.assert_one_line(
      testing.run_command(cifar_eval, *testing.to_flags(
          checkpoint_dir='run/train', data_dir='out/0.4_holdout', once=True,
          eval_dir='run/eval'), cwd=tmp_path), 2,
      'run/eval has results on other data than --data_dir=out/0.4_holdout')
  found, = runs.read([str(tmp_path / 'run')])
  test = {r.step: 100 * r.top1 for r in found.eval_results}
  held_out = {r.step: r.top1 for r in found.holdout_results}
  assert found.picked in [test[step] for step in held_out
                          if held_out[step] == max(held_out.values())]
