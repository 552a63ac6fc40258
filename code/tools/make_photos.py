"""Makes JPEG files and their list, to measure how large sets are handled.

    python code/tools/make_photos.py --output_dir=photos --num_images=100000
    python code/prepare_data.py --dataset_name=many --image_root=photos \\
      --image_list=photos/train.csv --val_list=photos/val.csv

Images of 100 classes, with soft random shapes in the colour of the class and in
others. A fifth of the labels of train.csv are wrong; val.csv lists other images,
at most 1,000. Exit codes: 0 finished, 1 failed, 2 bad input.
"""
import os
import sys

from absl import flags
import numpy as np
from PIL import Image

# Tools are not installed; the package is in the folder above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mentormix import command
from mentormix import files

_CLASSES = 100
_IN_FOLDER = 1000  # Images.
_WRONG = 0.2  # Share of the labels.
_MAX_VAL = 1000  # Images.
_SHAPES = 8  # Random colours along a side.


def define_flags():
  """Defines the flags of this command."""
  flags.DEFINE_string('output_dir', '', 'The directory to make.')
  flags.register_validator('output_dir', bool, 'must be given')
  flags.DEFINE_integer('num_images', 100000, 'Training images.', lower_bound=1)
  flags.DEFINE_integer('width', 160, 'Pixels.', lower_bound=8)
  flags.DEFINE_integer('height', 128, 'Pixels.', lower_bound=8)


def main():
  """Flags -> files."""
  args = flags.FLAGS
  files.check_output(args.output_dir, set(), overwrite=False)
  with files.new_directory(args.output_dir) as directory:
    for split, count in (('train', args.num_images),
                         ('val', min(args.num_images, _MAX_VAL))):
      with open(os.path.join(directory, f'{split}.csv'), 'w',
                encoding='utf-8') as rows:
        rows.write('path,label,clean_label\n')
        for n in range(count):
          clean = n % _CLASSES
          random = np.random.RandomState([n, split == 'val'])
          wrong = split == 'train' and random.uniform() < _WRONG
          label = (clean + random.randint(1, _CLASSES)) % _CLASSES
          name = f'{split}/{n // _IN_FOLDER:04d}/{n:07d}.jpg'
          path = os.path.join(directory, name)
          os.makedirs(os.path.dirname(path), exist_ok=True)
          _image(clean, random, args.width, args.height).save(path, quality=90)
          rows.write(f'{name},{label if wrong else clean},{clean}\n')
  print(f'{args.output_dir}: {args.num_images} training images')


def _image(label, random, width, height):
  """A picture of soft shapes, some of them in the colour of the class."""
  colours = random.randint(256, size=[_SHAPES, _SHAPES, 3])
  own = np.random.RandomState(label).randint(256, size=3)
  colours = np.where(random.uniform(size=[_SHAPES, _SHAPES, 1]) < 0.5, own,
                     colours)
  return Image.fromarray(colours.astype(np.uint8)).resize(
      (width, height), Image.BICUBIC)


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
