r"""Draws the weights of a MentorNet, as a picture or an animation.

    python code/show_mentornet.py \
      --trained_mentornet_dir=mentornet_models/mentornet_pd --output_file=pd.png

Maps show the weight over the loss and its difference to the moving average.
Curves show it along lines of a map. A picture shows a few stages of training, a
.gif the whole training. The curriculum that the MentorNet learned is shown
beside it if it is known. Exit codes: 0 written, 1 failed, 2 bad input.
"""
import functools
import json
import os
import tempfile

from absl import flags

from mentormix import command
from mentormix import files
from mentormix.mentornet import curriculum
from mentormix.mentornet import lesson as lesson_lib
from mentormix.mentornet import pictures
from mentormix.messages import UserError

PICTURE, ANIMATION = '.png', '.gif'


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string(
      'trained_mentornet_dir', '', 'The MentorNet: a directory or a checkpoint '
      'prefix.')
  known = ', '.join(curriculum.CURRICULA)
  flags.DEFINE_string(
      'curriculum', '', f'What to show beside it: a predefined curriculum '
      f'({known}), a Python file that defines v_star(loss, difference, label, '
      'epoch) (it is run), or a CSV file of loss traces; by default the '
      'predefined one that the MentorNet learned, if its '
      f'{lesson_lib.METRICS} names one.')
  flags.DEFINE_list(
      'epochs', [], 'Percentages of training, 0 to 99; by default the ends of '
      'the phases of the curriculum, or all for an animation.')
  flags.register_validator(
      'epochs', lambda epochs: all(
          e.isdecimal() and int(e) <= 99 for e in epochs),
      'must be whole numbers from 0 to 99')
  flags.DEFINE_string('output_file', '',
                      f'The file to write, {PICTURE} or {ANIMATION}.')
  flags.register_validator(
      'output_file', lambda path: path.endswith((PICTURE, ANIMATION)),
      f'must be given and end in {PICTURE} or {ANIMATION}')
  flags.register_validator('trained_mentornet_dir', bool, 'must be given')
  flags.DEFINE_boolean('overwrite', False, 'Replace the file if it exists.')


def main():
  """Flags -> MentorNet and its curriculum -> a file."""
  args = flags.FLAGS
  path, output = args.trained_mentornet_dir, args.output_file
  if path == 'threshold':
    raise UserError('--trained_mentornet_dir=threshold compares the losses of '
                    'a batch with one another; there is no weight to draw')
  if os.path.isdir(output):
    raise UserError(f'--output_file={output} is a directory')
  if os.path.lexists(output) and not args.overwrite:
    raise UserError(f'--output_file={output} exists already; add --overwrite '
                    'to replace it')
  shown = args.curriculum or learned_curriculum(path)
  chosen, traces = lesson_lib.target(shown or 'baseline')
  epochs = curriculum.stages(chosen.phases)
  directory = os.path.dirname(os.path.abspath(output))
  files.writable_directory(directory, 'output_file')
  # TensorFlow starts once the flags are valid.
  from mentormix.mentornet import loading
  learned = functools.partial(loading.apply_network, loading.load(path))
  draw = pictures.draw
  if output.endswith(ANIMATION):
    draw, epochs = pictures.animate, range(100)
  if args.epochs:
    epochs = sorted(set(map(int, args.epochs)))
  with tempfile.TemporaryDirectory(dir=directory) as unfinished:
    drawn = os.path.join(unfinished, os.path.basename(output))
    draw(drawn, learned, epochs=epochs, traces=traces,
         v_star=chosen.v_star if shown else None,
         title=os.path.basename(os.path.normpath(path)))
    os.replace(drawn, output)
  print(output)


def learned_curriculum(path):
  """The predefined curriculum that a MentorNet learned, '' if unknown."""
  try:
    with open(os.path.join(path, lesson_lib.METRICS)) as f:
      metrics = json.load(f)
    if 'file' not in metrics.get('source', {}):
      return curriculum.CURRICULA[metrics['curriculum']].name
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    pass  # Made elsewhere, or from something else.
  return ''


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
