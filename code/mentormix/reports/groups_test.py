"""Grouping runs, on directories written by hand."""
import pytest

from mentormix.reports.testing import NOISE
from mentormix.reports.testing import read_groups
from mentormix.reports.testing import write_run


def test_groups_are_of_seeds(tmp_path):
  """Hand-made: 70, 80, 90 have mean 80 and sample deviation 10."""
  for seed, last in enumerate((0.7, 0.8, 0.9)):
    write_run(tmp_path / str(seed), (0.95, last), seed=seed,
              num_readers=seed + 1, data_dir=f'data{seed}/0.4')
  write_run(tmp_path / 'running', seed=3, max_number_of_steps=100,
            accuracies=())
  group, = read_groups(tmp_path)
  assert group.label == group.method == 'mentormix'
  assert [run.config.seed for run in group.runs] == [0, 1, 2]
  assert group.left_out == 1
  assert group.last == pytest.approx((80, 10, 3))
  assert str(group.last) == '80.00 ± 10.00'
  assert group.peak == pytest.approx((95, 0, 3))
  assert group.median(2) == pytest.approx((87.5, 5, 3))  # 82.5, 87.5, 92.5.


@pytest.mark.parametrize('method,apart', [
    ('cross_entropy', []),
    ('mixup', ['mixup_alpha']),
    ('mentornet', ['burn_in_epoch', 'example_dropout_rates',
                   'loss_p_percentile', 'trained_mentornet_dir']),
    ('mentormix', ['burn_in_epoch', 'example_dropout_rates',
                   'loss_p_percentile', 'mixup_alpha', 'second_reweight',
                   'trained_mentornet_dir']),
])
def test_settings_that_the_method_does_not_use(tmp_path, method, apart):
  other = dict(
      mixup_alpha=2.0, loss_p_percentile=0.5, trained_mentornet_dir='other',
      burn_in_epoch=7, second_reweight=False, example_dropout_rates='0.5,100')
  write_run(tmp_path / 'default', method=method)
  for name, value in other.items():
    write_run(tmp_path / name, method=method, **{name: value})
  groups = read_groups(tmp_path)
  found = {run.path: k for k, group in enumerate(groups) for run in group.runs}
  home = found[str(tmp_path / 'default')]
  assert sorted(name for name in other
                if found[str(tmp_path / name)] != home) == apart


def test_labels_and_order(tmp_path):
  write_run(tmp_path / 'a', mixup_alpha=8.0)
  write_run(tmp_path / 'b', mixup_alpha=2.0)
  write_run(tmp_path / 'c', method='cross_entropy')
  write_run(tmp_path / 'd', noise=dict(NOISE, rate_asked=0.2))
  write_run(tmp_path / 'e', studentnet='resnet8_thin')
  assert [(g.task.noise.level, g.task.student, g.label)
          for g in read_groups(tmp_path)] == [
              (0.2, 'resnet32', 'mentormix'),
              (0.4, 'resnet32', 'cross_entropy'),
              (0.4, 'resnet32', 'mentormix (mixup_alpha 2)'),
              (0.4, 'resnet32', 'mentormix (mixup_alpha 8)'),
              (0.4, 'resnet8_thin', 'mentormix')]
