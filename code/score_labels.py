"""Ranks the labels of a training set by how likely they are wrong.

    python code/score_labels.py --data_dir=data/cifar10/0.4 \\
      --checkpoint_dir=runs/cifar10_0.4/train \\
      --output_dir=runs/cifar10_0.4/scores

The student of a run looks once at every example that it was trained on, with
averaged weights and without augmentation. The higher the loss of the given
label, the more suspicious it is. If the run has a MentorNet, labels of examples
with a weight below 0.5 are suspected, otherwise those that the student
disagrees with. Replaces what an earlier call wrote to --output_dir:

    scores.csv      a row per example, the most suspicious first
    summary.json    counts and, if clean labels are known, precision and recall
    suspicious.png  the most suspicious images
    suspicious.html the same as a page, with given and proposed class
    pred_probs.npy  float32 [N, K]: the probabilities of the K classes, for the
                    examples in the order of scores.csv

Data set, student and MentorNet come from the run's config.json. Exit codes:
0 finished, 1 failed, 2 bad input.
"""
import os

from absl import flags

from mentormix import command
from mentormix import config as config_lib
from mentormix import eval_settings
from mentormix import files
from mentormix.messages import UserError


def define_flags():
  """Defines the flags; called once, by the script."""
  flags.DEFINE_string('data_dir', '', 'Directory of the training set.')
  flags.DEFINE_string('checkpoint_dir', '',
                      'The --train_log_dir of the training run.')
  flags.DEFINE_string(
      'output_dir', '',
      'Directory for the files.')
  for name in ('data_dir', 'checkpoint_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer(
      'step', None, 'Step of the checkpoint; by default the last.',
      lower_bound=0)
  flags.DEFINE_string('trained_mentornet_dir', '',
                      'The MentorNet; by default that of the run.')
  flags.DEFINE_integer('batch_size', 100, 'Images per batch.', lower_bound=1)
  flags.DEFINE_enum(
      'statistics', 'moving', eval_settings.STATISTICS,
      'Of batch norm. moving: those in the checkpoint, which belong to the '
      'weights before averaging (published); recomputed: those of up to 10,000 '
      'of the images with the averaged weights.')
  flags.DEFINE_integer('num_images', 64,
                       'How many images suspicious.png and .html show.',
                       lower_bound=1, upper_bound=1000)
  flags.DEFINE_string(
      'image_dir', '', 'The --image_dir of prepare_data.py: suspicious.html '
      'then shows the images as they are there, not as the student sees them.')
  flags.DEFINE_string('device_id', '0',
                      'GPUs to use, as in CUDA_VISIBLE_DEVICES.')


def main():
  """Flags and the run's settings -> a ranking of the labels."""
  args = flags.FLAGS
  run = config_lib.restore(args.checkpoint_dir)
  if args.trained_mentornet_dir:
    if run.method not in config_lib.WEIGHTED:
      raise UserError(
          f'--trained_mentornet_dir={args.trained_mentornet_dir}, but '
          f'{args.checkpoint_dir} was trained with --method={run.method}, '
          'which has no MentorNet')
    run = run._replace(trained_mentornet_dir=args.trained_mentornet_dir)
  if args.image_dir and not os.path.isdir(args.image_dir):
    raise UserError(f'--image_dir={args.image_dir} is not a directory')
  files.writable_directory(args.output_dir, 'output_dir')
  # Late: TensorFlow takes seconds to load.
  from mentormix import label_ranking
  from mentormix import runtime
  runtime.select_device(args.device_id)
  label_ranking.rank(run, args.checkpoint_dir, args.data_dir, args.output_dir,
                     args.step, args.batch_size, args.num_images,
                     args.statistics == 'recomputed', args.image_dir)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
