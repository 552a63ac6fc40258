"""Writes the files of a report; its page as Markdown and as HTML."""
import base64
import csv
import os
import re

import jinja2

from mentormix import files
from mentormix.reports import blocks as blocks_lib
from mentormix.reports import groups as groups_lib
from mentormix.reports import page
from mentormix.reports import panels
from mentormix.reports import runs as runs_lib


def write(directories, output_dir, title, last_k):
  """Reads runs and writes report.html, report.md, CSV files and pictures.

  Args:
    directories: those that hold the runs.
    output_dir: the directory to write to.
    title: of the page.
    last_k: how many of the last checkpoints the median covers.

  Returns:
    How many runs there are, in which states, in words.

  Raises:
    UserError: see `runs.read`; or `output_dir` cannot be written.
  """
  runs = runs_lib.read(directories)
  groups = groups_lib.group(runs)
  files.writable_directory(output_dir, 'output_dir')
  pictures = panels.draw(groups, output_dir)
  blocks = page.page(runs, groups, pictures, last_k)
  # The name of a directory may not be valid text.
  create = lambda name: open(os.path.join(output_dir, name), 'w', newline='',
                             encoding='utf-8', errors='backslashreplace')
  for name in ('report.md', 'report.html'):
    with create(name) as f:
      f.write(render(name, title, blocks, output_dir))
  for name, rows in (('report.csv', _group_rows(groups, last_k)),
                     ('runs.csv', _run_rows(runs, last_k))):
    with create(name) as f:
      if rows:
        writer = csv.DictWriter(f, rows[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
  return blocks[0].text


def _group_rows(groups, last_k):
  """The rows of report.csv, dicts."""
  rows = []
  for group in groups:
    row = dict(_task_columns(group.task), method=group.method,
               group=group.label, runs=len(group.runs),
               left_out=group.left_out)
    for name, figure in (('last', group.last), ('peak', group.peak),
                         (f'median_of_{last_k}', group.median(last_k))):
      row[f'{name}_mean'] = _number(figure.mean)
      row[f'{name}_deviation'] = _number(figure.deviation)
    for name, figure in (('stopped_early', group.picked),
                         ('recomputed', group.recomputed)):
      row[f'{name}_mean'] = _number(figure and figure.mean)
    row['paper'], row['published_code'] = map(
        _number, group.task.published(group.task.noise.level, group.method))
    rows.append(row)
  return rows


def _run_rows(runs, last_k):
  """The rows of runs.csv: the state of each run and all its settings."""
  rows = []
  for run in runs:
    row = {'path': run.path, **_task_columns(run.task),
           'method': run.config.method, 'seed': run.config.seed,
           'state': run.state, 'step': run.step,
           'checkpoints': len(run.eval_results), 'last': _number(run.last),
           'peak': _number(run.peak), 'stopped_early': _number(run.picked),
           'recomputed': _number(run.recomputed),
           f'median_of_{last_k}': _number(run.median(last_k)),
           'message': run.message}
    rows.append({**row, **run.config._asdict(), **row})
  return rows


def _task_columns(task):
  return {'dataset_name': task.dataset, 'noise': task.noise.name,
          'noise_type': task.noise.kind, 'noise_level': task.noise.level,
          'studentnet': task.student, 'max_number_of_steps': task.steps}


def _number(value):
  return blocks_lib.number(value, '.4f', missing='')


def render(name, title, blocks, directory):
  """The page in the form of one of the templates, a string.

  Args:
    name: report.md, which shows the pictures beside it; or report.html, which
      includes them and needs no other file.
    title: of the page.
    blocks: as from `page`.
    directory: where the pictures are.
  """
  def picture_data(picture):
    with open(os.path.join(directory, picture), 'rb') as f:
      return base64.b64encode(f.read()).decode('ascii')

  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mentormix.reports'), trim_blocks=True,
      autoescape=jinja2.select_autoescape(), keep_trailing_newline=True)
  environment.filters['plain'] = _plain
  return environment.get_template(name).render(
      title=title, blocks=blocks, picture_data=picture_data)


def _plain(value):
  """Text on one line in which Markdown sees no markup; bold if it is best."""
  text = re.sub(r'([\\`*<>|#\[\]]|(?<!\w)_|_(?!\w))', r'\\\1',
                ' '.join(str(value).split()))
  return f'**{text}**' if isinstance(value, blocks_lib.Best) else text
