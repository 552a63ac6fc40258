r"""Compares ways to find wrong labels, on a training set with clean labels.

    python code/tools/compare_ranking.py --mentormix=runs/mentormix/scores \
      --cross_entropy=runs/cross_entropy/scores --out_of_fold=runs/folds \
      --output_dir=runs/ranking

Each input is a directory with scores.csv and pred_probs.npy: of
code/score_labels.py, for a run of MentorMix and one of cross-entropy; and of
code/tools/out_of_fold.py. The labels are ranked by the loss of the two runs,
which is the order of their rows; and, from the out-of-fold probabilities, by
cleanlab: by its label quality (self confidence), and with the labels that
find_label_issues names before all others.
Writes ranking.md, with the area under the ROC curve and the precision among the
labels that come first, and ranking.json. Needs `pip install cleanlab`. Exit
codes: 0 finished, 1 failed, 2 bad input.
"""
import csv
import os
import sys
from typing import NamedTuple

from absl import flags
import numpy as np

# Tools are not installed; the package is in the folder above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mentormix import command
from mentormix import detection
from mentormix import files
from mentormix import label_ranking
from mentormix.messages import log, UserError

INPUTS = ('mentormix', 'cross_entropy', 'out_of_fold')
SHARES = (0.01, 0.05, 0.1, 0.4)  # Of the labels, the most suspicious first.


class Scored(NamedTuple):
  """What a directory holds, in the order of the ids. N is their number."""
  ids: np.ndarray  # [N] strings.
  given: np.ndarray  # int64 [N].
  clean: np.ndarray  # [N] strings; '' where it is not known.
  row: np.ndarray  # int64 [N], in scores.csv, from 0.
  probabilities: np.ndarray  # float32 [N, K].


def define_flags():
  """Defines the flags of this command."""
  for name in INPUTS:
    flags.DEFINE_string(name, '', 'Directory with scores.csv and '
                        'pred_probs.npy.')
  flags.DEFINE_string('output_dir', '', 'Directory for the table.')
  for name in INPUTS + ('output_dir',):
    flags.register_validator(name, bool, 'must be given')


def main():
  """Scores -> rankings -> a table."""
  args = flags.FLAGS
  cleanlab = _cleanlab()
  scored = {name: read(name, args[name].value) for name in INPUTS}
  first = scored[INPUTS[0]]
  for name, other in scored.items():
    if not (np.array_equal(other.ids, first.ids)
            and np.array_equal(other.given, first.given)):
      raise UserError(f'--{name}={args[name].value} is about other examples or '
                      f'labels than --{INPUTS[0]}={args[INPUTS[0]].value}')
  known = first.clean != ''
  is_wrong = first.clean[known] != first.given[known].astype(str)
  if not is_wrong.any() or is_wrong.all():
    raise UserError(f'--{INPUTS[0]}={args[INPUTS[0]].value} needs right and '
                    'wrong labels, with a clean_label')
  files.writable_directory(args.output_dir, 'output_dir')
  probabilities = scored['out_of_fold'].probabilities
  quality = cleanlab.rank.get_label_quality_scores(first.given, probabilities)
  issues = cleanlab.filter.find_label_issues(first.given, probabilities,
                                             n_jobs=1)
  rows = [dict(ranking=name, **judge(suspicion[known], is_wrong))
          for name, suspicion in (
              ('MentorMix, loss', -first.row),
              ('cross-entropy, loss', -scored['cross_entropy'].row),
              ('cleanlab, label quality', -quality),
              ('cleanlab, label issues first', issues - quality))]
  result = dict(count=len(is_wrong), noise_rate=float(is_wrong.mean()),
                num_label_issues=int(issues[known].sum()), rankings=rows)
  files.write_json(os.path.join(args.output_dir, 'ranking.json'), result,
                   indent=1)
  text = table(result)
  with files.replaced(os.path.join(args.output_dir, 'ranking.md')) as f:
    f.write(text)
  log(text)


def _cleanlab():
  try:
    import cleanlab.filter
    import cleanlab.rank
    return cleanlab
  except ImportError as error:
    raise UserError(f'cleanlab cannot be imported ({error}); install it with '
                    'pip install cleanlab')


def read(flag, directory):
  """The `Scored` of a directory; UserError if it is not what it should be."""
  path = os.path.join(directory, label_ranking.SCORES)
  probabilities_path = os.path.join(directory, label_ranking.PROBABILITIES)
  try:
    with open(path, encoding='utf-8', newline='') as f:
      rows = sorted((row['id'], int(row['given_label']), row['clean_label'], n)
                    for n, row in enumerate(csv.DictReader(f)))
    probabilities = np.load(probabilities_path)
  except (OSError, KeyError, ValueError) as error:
    raise UserError(f'--{flag}={directory}: {error!r}; it must hold what '
                    'code/score_labels.py writes')
  ids, given, clean, index = map(np.array, zip(*rows))
  if len(rows) != len(probabilities) or len(set(ids)) != len(ids):
    raise UserError(f'--{flag}={directory}: {path} must have an id of its own '
                    f'for each row of {probabilities_path}')
  return Scored(ids, given, clean, index, probabilities[index])


def judge(suspicion, is_wrong):
  """How well `suspicion` [N] ranks the labels of which some are wrong [N]."""
  order = label_ranking.by_suspicion(suspicion)
  counts = {share: max(1, round(share * len(order))) for share in SHARES}
  return dict(
      auc=detection.auc(suspicion, is_wrong),
      precision={f'{share:.0%}': float(is_wrong[order[:count]].mean())
                 for share, count in counts.items()})


def table(result):
  """The result in Markdown."""
  names = list(result['rankings'][0]['precision'])
  lines = [['ranking', 'AUC'] + [f'precision, first {name}' for name in names],
           ['---'] * (2 + len(names))]
  lines += [[row['ranking'], f'{row["auc"]:.4f}'] + [
      f'{row["precision"][name]:.4f}' for name in names]
            for row in result['rankings']]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines) + (
      f'\n{result["count"]} labels, {result["noise_rate"]:.2%} of them wrong; '
      f'find_label_issues names {result["num_label_issues"]}.\n')


def cli():
  """The command; takes its arguments from the command line."""
  command.run(define_flags, main)


if __name__ == '__main__':
  cli()
