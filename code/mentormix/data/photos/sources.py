"""What a set of photographs is made of, as every kind of set gives it."""
import typing

import numpy as np

from mentormix.data import holdout
from mentormix.data.photos import rows as rows_lib


class Split(typing.NamedTuple):
  """What goes into a directory."""
  name: str  # Of the directory: 0.4 or val.
  split: str  # train or test.
  noise_type: typing.Optional[str]  # A key of noise.DEFINITIONS; None: clean.
  rate_asked: typing.Optional[float]  # None where it is not known.
  rows: rows_lib.Rows  # Those whose files exist.
  missing: rows_lib.Rows  # The others.
  holdout: typing.Optional[dict] = None  # As of `holdout.facts`.


class Source(typing.NamedTuple):
  """A set: its classes and its splits."""
  path: str  # Of the annotations or the list.
  class_names: typing.Tuple[str, ...]  # K names.
  wnids: typing.Optional[typing.Tuple[str, ...]]  # K WordNet ids, if known.
  splits: typing.Tuple[Split, ...]  # Test sets first.


def split(name, kind, noise_type, rate_asked, rows):
  """Makes a `Split` of rows, with the path '' where the file is missing.

  Args:
    name, kind, noise_type, rate_asked: as in `Split`; `kind` is its `split`.
    rows: an iterable of `Row`s.
  """
  found, missing = rows_lib.Rows(), rows_lib.Rows()
  for row in rows:
    (found if row.path else missing).append(row)
  return Split(name, kind, noise_type, rate_asked, found, missing)


def hold_out(split, share, seed):
  """Takes a share of the rows of a training `Split` out of it.

  Returns:
    (split, held): without those rows; and these as a test `Split`.
  """
  is_held = holdout.held_out(len(split.rows), share, seed)
  kept, held = (rows_lib.Rows(split.rows[k] for k in np.flatnonzero(mask))
                for mask in (~is_held, is_held))
  facts = holdout.facts(share, is_held)
  return split._replace(rows=kept, holdout=facts), split._replace(
      name=holdout.directory_of(split.name), split='test', rows=held,
      missing=rows_lib.Rows(), holdout=facts)
