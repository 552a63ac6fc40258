"""What lies beside the records of photographs, and what is said of them.

    noise.json    how the set was made, and the rates asked for and realised
    labels.csv    index,label,clean_label,source_id of the records, in the
                  order of the list; a clean label of -2: the label is wrong
    missing.csv   label,clean_label,source_id of rows without a file
    damaged.csv   label,clean_label,source_id,path,reason of bad files
"""
import csv
import os

import numpy as np

from mentormix.data import label_files
from mentormix.data import noise

MISSING_FILE, DAMAGED_FILE = 'missing.csv', 'damaged.csv'
FORMAT_VERSION = 1


def asked(settings, split):
  """The part of noise.json that the settings and lists determine, a dict."""
  facts = {
      'format_version': FORMAT_VERSION, 'dataset_name': settings.dataset_name,
      'photographs': True, 'image_size': None, 'split': split.split,
      'noise_type': split.noise_type, 'rate_asked': split.rate_asked,
      'seed': (settings.seed if split.split == 'train' or split.holdout
               else None),
      'num_train': None, 'max_side': settings.max_side,
      'rows_md5': split.rows.md5(), 'num_missing': len(split.missing)}
  if settings.num_shards:
    facts['num_shards'] = settings.num_shards
  return dict(facts, **split.holdout or {})


def counted(source, split, shards):
  """The rest of noise.json, without checksums, a dict.

  Args:
    source: the `sources.Source`.
    split: one of its `Split`s.
    shards: the `writing.Shard`s.
  """
  kept = np.ones(len(split.rows), bool)
  kept[[index for shard in shards for index, _ in shard.damaged]] = False
  labels, clean = split.rows.labels()[kept], split.rows.clean()
  clean = None if clean is None else clean[kept]
  count = lambda values: np.bincount(values, None,
                                     len(source.class_names)).tolist()
  return dict(
      definition=noise.DEFINITIONS.get(split.noise_type, 'clean'),
      archive=os.path.basename(os.path.abspath(source.path)),
      num_examples=len(labels), num_classes=len(source.class_names),
      class_names=source.class_names, wnids=source.wnids,
      given_label_counts=count(labels),
      clean_label_counts=None if clean is None else count(clean[clean >= 0]),
      num_changed=None if clean is None else int(np.sum(clean != labels)),
      rate_realised=_rate(labels, clean),
      rate_listed=_rate(*_listed(split)),
      num_listed=len(split.rows) + len(split.missing),
      num_damaged=int(np.sum(~kept)),
      num_encoded_again=sum(shard.num_new for shard in shards),
      num_shards=sum(shard.num_records > 0 for shard in shards),
      transition=None)


def _rate(labels, clean):
  return None if clean is None else noise.realised_rate(clean, labels)


def _listed(split):
  """(labels, clean labels) of a split with those of missing files."""
  parts = [part for part in (split.rows, split.missing) if len(part)]
  clean = [part.clean() for part in parts]
  return np.concatenate([part.labels() for part in parts]), (
      None if any(c is None for c in clean) else np.concatenate(clean))


def write_lists(directory, split, shards):
  """Writes labels.csv, and missing.csv and damaged.csv where there are any."""
  damaged = dict(pair for shard in shards for pair in shard.damaged)
  beside = ('label', 'clean_label', 'source_id')
  indices = (k for k in range(len(split.rows)) if k not in damaged)
  _write(directory, label_files.CSV_FILE, ('index', *beside), (
      (position, *_cells(split.rows[k])) for position, k in enumerate(indices)))
  if len(split.missing):
    _write(directory, MISSING_FILE, beside, map(_cells, split.missing))
  if damaged:
    _write(directory, DAMAGED_FILE, (*beside, 'path', 'reason'), (
        (*_cells(split.rows[k]), split.rows[k].path.split('\0')[0], reason)
        for k, reason in sorted(damaged.items())))


def _cells(row):
  return row.label, '' if row.clean is None else row.clean, row.id


def _write(directory, name, header, lines):
  with open(os.path.join(directory, name), 'w', encoding='utf-8', newline='',
            errors='surrogateescape') as stream:
    table = csv.writer(stream, lineterminator='\n')
    table.writerow(header)
    table.writerows(lines)


def sentence(facts):
  """What the screen says of a set: a phrase from its noise.json."""
  words = f'{facts["num_examples"]} photographs, '
  is_clean = facts['split'] == 'test' and 'holdout' not in facts
  if is_clean:
    words += 'clean labels'
  elif facts['rate_asked'] is None:
    words += 'labels as listed'
  else:
    words += f'{facts["noise_type"]} noise, {facts["rate_asked"]:g} asked'
  if not is_clean and facts['rate_realised'] is not None:
    words += f', {facts["rate_realised"]:.4f} realised'
  lacking = [f'{facts[f"num_{what}"]} {what} ({what}.csv)'
             for what in ('missing', 'damaged') if facts[f'num_{what}']]
  if lacking:
    words += f'; of {facts["num_listed"]} listed, {" and ".join(lacking)}'
    if facts['split'] == 'train' and facts['rate_listed'] is not None:
      words += f', with which it would be {facts["rate_listed"]:.4f}'
  if facts['num_encoded_again']:
    words += f'; {facts["num_encoded_again"]} encoded again'
  return words
