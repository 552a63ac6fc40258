"""The student networks, by name.

    student = students.get('resnet32')
    logits = student(images, num_classes, is_training)   # [B, K]

To add a student, add a row to `STUDENTS`: a callable with that signature and
the keywords `update_statistics` and `dtype`.
"""
import functools

from mentormix.messages import UserError
from mentormix.students import resnet

# The published "ResNet-32" is wide; the thin ones are the classic widths.
STUDENTS = {
    'resnet32': functools.partial(
        resnet.resnet, depth=32, widths=(64, 128, 256, 512)),
    'resnet32_thin': functools.partial(
        resnet.resnet, depth=32, widths=(16, 16, 32, 64)),
    'resnet14_thin': functools.partial(
        resnet.resnet, depth=14, widths=(16, 16, 32, 64)),
    'resnet8_thin': functools.partial(
        resnet.resnet, depth=8, widths=(16, 16, 32, 64)),
}


def get(name):
  """Returns the student called `name`; UserError names the known ones."""
  if name not in STUDENTS:
    raise UserError(f'--studentnet={name} is unknown; known are '
                    f'{", ".join(sorted(STUDENTS))}')
  return STUDENTS[name]
