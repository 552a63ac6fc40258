r"""Class probabilities of training examples, by students that never saw them.

    python code/tools/out_of_fold.py --data_dir=data/cifar10/0.4 \
      --output_dir=runs/folds --num_folds=5 \
      --training='--preset=cpu --method=cross_entropy'

Cross-validation, as cleanlab and confident learning need it. The files of the
training set are divided into folds; their records are shuffled. For each fold,
a student is trained on the others and scores the labels of this one. With n
folds, and --max_number_of_steps and --num_epochs_per_decay divided by n, all
folds together cost what one run on the whole set costs. Writes to --output_dir

    scores.csv, pred_probs.npy   as code/score_labels.py, fold after fold; row
                                 i of one belongs to row i of the other
    foldN/                       data, held (links to files), train, scores

Rerun the same command to resume. Exit codes: 0 finished, 2 bad input, others as
of the command that failed.
"""
import csv
import os
import shlex
import sys

from absl import flags
import numpy as np

CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Tools are not installed; the package is in the folder above.
sys.path.insert(0, CODE)

from mentormix import command
from mentormix import eval_settings
from mentormix import files
from mentormix import label_ranking
from mentormix.data import datasets
from mentormix.data import noise_facts
from mentormix.messages import log, UserError

_OF_THE_WHOLE = ('sha256', 'given_label_counts', 'clean_label_counts',
                 'num_changed', 'transition')  # In noise.json.


def define_flags():
  """Defines the flags of this command."""
  flags.DEFINE_string('data_dir', '', 'Directory of the training set.')
  flags.DEFINE_string('output_dir', '', 'Directory for folds and results.')
  for name in ('data_dir', 'output_dir'):
    flags.register_validator(name, bool, 'must be given')
  flags.DEFINE_integer('num_folds', 5, 'Number of folds.', lower_bound=2)
  flags.DEFINE_string('training', '', 'Flags for cifar_train_mentormix.py.')
  flags.DEFINE_enum('statistics', 'moving', eval_settings.STATISTICS,
                    'As of score_labels.py.')
  flags.DEFINE_string('device_id', '0',
                      'GPUs to use, as in CUDA_VISIBLE_DEVICES.')


def main():
  """Folds -> students -> probabilities."""
  args = flags.FLAGS
  facts = noise_facts.read_facts(args.data_dir)
  if facts is None:
    raise UserError(f'--data_dir={args.data_dir} has no '
                    f'{noise_facts.FACTS_FILE}; make it with '
                    'code/prepare_data.py')
  name = facts['dataset_name']
  paths = datasets.find_files(datasets.get(name, args.data_dir), 'train',
                              args.data_dir)
  if len(paths) < args.num_folds:
    raise UserError(f'--num_folds={args.num_folds}, but {args.data_dir} has '
                    f'{len(paths)} files; prepare it with --num_shards')
  counts = {path: sum(1 for _ in datasets.read_records(path)) for path in paths}
  for k in range(args.num_folds):
    fold = os.path.join(args.output_dir, f'fold{k}')
    held = paths[k::args.num_folds]
    kept = [path for path in paths if path not in held]
    for part, chosen in (('data', kept), ('held', held)):
      write_part(os.path.join(fold, part), chosen, name, dict(
          {key: facts[key] for key in facts if key not in _OF_THE_WHOLE},
          num_examples=sum(map(counts.get, chosen)),
          fold=f'{part} of fold {k} of {args.num_folds}'))
    log(f'fold {k} of {args.num_folds}')
    _run('cifar_train_mentormix.py', f'--dataset_name={name}',
         f'--data_dir={fold}/data', f'--train_log_dir={fold}/train',
         *shlex.split(args.training))
    _run('score_labels.py', f'--data_dir={fold}/held',
         f'--checkpoint_dir={fold}/train', f'--output_dir={fold}/scores',
         f'--statistics={args.statistics}')
  _collect(args.output_dir, args.num_folds)


def write_part(directory, paths, name, facts):
  """Makes a training set of links to some of the files of another."""
  os.makedirs(directory, exist_ok=True)
  for n, path in enumerate(paths):
    link = os.path.join(directory, f'{name}_train-{n:05d}-of-{len(paths):05d}')
    if not os.path.lexists(link):
      os.symlink(os.path.abspath(path), link)
  noise_facts.write_facts(directory, facts)


def _run(script, *args):
  """Runs a command of this repository; ends this one if it fails."""
  # After Ctrl-C, which it gets too, training has time to save.
  code = os.spawnv(os.P_WAIT, sys.executable, [
      sys.executable, os.path.join(CODE, script),
      f'--device_id={flags.FLAGS.device_id}', *args])
  if code:
    sys.exit(code)


def _collect(output_dir, num_folds):
  """Writes the rows of all folds, one fold after another."""
  folders = [os.path.join(output_dir, f'fold{k}', 'scores')
             for k in range(num_folds)]
  with files.replaced(os.path.join(output_dir, label_ranking.SCORES)) as out:
    csv.writer(out, lineterminator='\n').writerow(label_ranking.COLUMNS)
    for folder in folders:
      with open(os.path.join(folder, label_ranking.SCORES)) as f:
        next(f)
        out.writelines(f)
  parts = [np.load(os.path.join(folder, label_ranking.PROBABILITIES),
                   mmap_mode='r') for folder in folders]
  whole = np.lib.format.open_memmap(
      os.path.join(output_dir, label_ranking.PROBABILITIES), 'w+', np.float32,
      shape=(sum(map(len, parts)), parts[0].shape[1]))
  np.concatenate(parts, out=whole)
  log(f'{label_ranking.SCORES} and {label_ranking.PROBABILITIES} of '
      f'{len(whole)} examples are in {output_dir}')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
