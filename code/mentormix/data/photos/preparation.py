"""Photographs and their lists -> records and noise.json, for each split."""
import os
import shlex
import shutil

from mentormix import files
from mentormix.data import holdout
from mentormix.data import noise_facts
from mentormix.data.photos import cnwl
from mentormix.data.photos import facts as facts_lib
from mentormix.data.photos import fetching
from mentormix.data.photos import lists
from mentormix.data.photos import settings as settings_lib
from mentormix.data.photos import sources
from mentormix.data.photos import webvision
from mentormix.data.photos import writing
from mentormix.messages import RunError, UserError

_BESIDE = (facts_lib.MISSING_FILE, facts_lib.DAMAGED_FILE)


def prepare(settings):
  """Writes a directory for each split of a set of photographs.

  Args:
    settings: a `preparation_settings.Settings`.

  Raises:
    UserError: an input is bad, or a directory is in the way.
    RunError: writing failed.
  """
  settings = settings_lib.checked(settings)
  if settings.fetch_images:
    files.writable_directory(settings.image_root[0], 'image_root')
    _check(settings, _source(settings).splits[0])  # Test images, before hours.
    fetching.fetch(
        cnwl.urls(settings.dataset_name, settings.annotations,
                  settings.noise_levels),
        os.path.join(settings.image_root[0], fetching.FOLDER))
  source = _source(settings)
  for split in source.splits:
    _check(settings, split)
  source = source._replace(splits=tuple(_held_out(settings, source.splits)))
  asked = [facts_lib.asked(settings, split) for split in source.splits]
  paths = [os.path.join(settings.output_dir, split.name)
           for split in source.splits]
  kept = [noise_facts.keep(path, facts, settings.overwrite, _BESIDE)
          for path, facts in zip(paths, asked)]
  files.writable_directory(settings.output_dir, 'output_dir')
  for path, split, facts, keep in zip(paths, source.splits, asked, kept):
    if keep:
      print(f'{path}: kept, it is finished and has these settings')
    else:
      _write(settings, source, split, path, facts)
  train = next(path for path, split in zip(paths, source.splits)
               if split.split == 'train')
  print(f'Now train with --dataset_name={settings.dataset_name} '
        f'--data_dir={shlex.quote(train)} and evaluate with '
        f'--data_dir={shlex.quote(paths[0])}'
        + holdout.hint(train, settings.holdout))


def _source(settings):
  if settings.image_list:
    return lists.source(settings.image_list, settings.val_list,
                        settings.image_root, settings.val_root,
                        settings.noise_key)
  if settings.dataset_name in cnwl.NAMES:
    return cnwl.source(settings.dataset_name, settings.annotations,
                       settings.noise_levels, settings.image_root,
                       settings.val_root)
  return webvision.source(settings.dataset_name, settings.annotations,
                          settings.image_root, settings.val_root,
                          settings.val_list)


def _held_out(settings, splits):
  """Yields the splits, after each training split what is held out of it."""
  for split in splits:
    if split.split == 'train' and settings.holdout:
      for part in sources.hold_out(split, settings.holdout, settings.seed):
        _check(settings, part)
        yield part
    else:
      if split.split == 'train':
        holdout.refuse_old(os.path.join(settings.output_dir, split.name))
      yield split


def _check(settings, split):
  """Raises UserError for a split of which nothing is left, or too little."""
  count, missing = len(split.rows), len(split.missing)
  if not count:
    first = f', such as {split.missing[0].id},' if missing else ''
    is_test = split.split == 'test'
    if is_test and settings.val_root:
      place = f'--val_root={settings.val_root}'
    elif settings.image_root:
      place = f'--image_root={",".join(settings.image_root)}'
    else:
      place = 'the folder of ' + (f'--val_list={settings.val_list}' if is_test
                                  else f'--image_list={settings.image_list}')
    flag = 'val_root' if is_test else 'image_root'
    raise UserError(
        f'{split.name}: none of its {missing} images{first} is below {place}; '
        f'unpack them there, or name their folder as --{flag}')
  if (settings.num_shards or 1) > count:
    raise UserError(f'--num_shards={settings.num_shards} leaves files empty: '
                    f'{split.name} has {count} images')


def _write(settings, source, split, path, asked):
  """Writes the directory of a split; it exists only once it is complete."""
  unfinished = os.path.join(settings.output_dir, f'.{split.name}.unfinished')
  count = writing.num_shards(len(split.rows), settings.num_shards)
  try:
    shards = writing.write(unfinished, split, asked, count, settings.seed,
                           settings.max_side, settings.num_workers)
    full = [shard for shard in shards if shard.num_records]
    if not full:
      index, reason = shards[0].damaged[0]
      raise UserError(
          f'{split.name}: none of its {len(split.rows)} images can be read; '
          f'the first: {split.rows[index].path} ({reason})')
    facts = dict(asked, **facts_lib.counted(source, split, shards))
    with files.new_directory(path) as directory:
      facts_lib.write_lists(directory, split, shards)
      facts['sha256'] = {name: files.sha256_of(os.path.join(directory, name))
                         for name in os.listdir(directory)}
      names = [f'{settings.dataset_name}_{split.split}-{k:05d}-of-'
               f'{len(full):05d}' for k in range(len(full))]
      facts['sha256'].update(zip(names, (shard.sha256 for shard in full)))
      noise_facts.write_facts(directory, facts)
      for name, shard in zip(names, full):
        os.replace(shard.path, os.path.join(directory, name))
    shutil.rmtree(unfinished)
  except OSError as error:
    raise RunError(f'cannot write {path} ({error}); fix that, then run the '
                   'same command again: finished files are kept')
  print(f'{path}: {facts_lib.sentence(facts)}', flush=True)
