"""Which pictures are drawn."""
from mentormix.reports import panels
from mentormix.reports.testing import read_groups
from mentormix.reports.testing import WEIGHTS
from mentormix.reports.testing import write_run


def test_no_weights_no_picture_of_them(tmp_path):
  """Methods that weight nothing are not drawn, whatever was logged."""
  write_run(tmp_path / 'a', method='mixup', events=WEIGHTS)
  write_run(tmp_path / 'b', noise=None, data_dir='d/web')
  groups = read_groups(tmp_path)
  assert panels.draw(groups, str(tmp_path)) == ['accuracy_vs_step.png',
                                                'accuracy_vs_noise.png']
  groups = [g for g in groups if g.method == 'mentormix']
  assert panels.draw(groups, str(tmp_path)) == ['accuracy_vs_step.png']
  assert not (tmp_path / 'accuracy_vs_noise.png').exists()


def test_the_paper_is_drawn_beside_its_own_student(tmp_path):
  for student in ('resnet32', 'resnet14_thin'):
    write_run(tmp_path / student, method='mixup', studentnet=student)
  drawn = {title.split('\n')[1].split(',')[0]: [curve.label for curve in curves]
           for title, curves in panels._noise_panels(
               read_groups(tmp_path), 'last')}
  assert drawn == {'resnet32': ['mixup', 'mixup, paper'],
                   'resnet14_thin': ['mixup']}
