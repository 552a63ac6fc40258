"""Writes the files of a report; its page as Markdown and as HTML."""
import base64
import os
import re

import jinja2

from mentormix import files
from mentormix.reports import groups as groups_lib
from mentormix.reports import page
from mentormix.reports import panels
from mentormix.reports import runs as runs_lib
from mentormix.reports import tables


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
  for name, text in (
      ('report.csv', tables.to_csv(tables.group_rows(groups, last_k))),
      ('runs.csv', tables.to_csv(tables.run_rows(runs, last_k))),
      ('report.md', render('report.md', title, blocks, output_dir)),
      ('report.html', render('report.html', title, blocks, output_dir))):
    # The name of a directory may not be valid text.
    with open(os.path.join(output_dir, name), 'w', encoding='utf-8',
              errors='backslashreplace', newline='') as f:
      f.write(text)
  return blocks[0].text


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
  """Text on one line in which Markdown sees no markup."""
  return re.sub(r'([\\`*<>|#\[\]]|(?<!\w)_|_(?!\w))', r'\\\1',
                ' '.join(str(value).split()))
