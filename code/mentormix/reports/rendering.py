"""A report's page as Markdown and as HTML."""
import base64
import os
import re

import jinja2

from mentormix.reports import page


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
  environment.filters.update(plain=_plain, kind=_kind)
  return environment.get_template(name).render(
      title=title, blocks=blocks, picture_data=picture_data)


def _plain(value):
  """Text on one line in which Markdown sees no markup."""
  return re.sub(r'([\\`*<>|#\[\]]|(?<!\w)_|_(?!\w))', r'\\\1',
                ' '.join(str(value).split()))


def _kind(cell):
  """The class of a cell in HTML."""
  text = str(cell)
  if re.match(rf'[\d.,]+( ± [\d.]+)?$|{page.NO_FIGURE}$', text):
    return 'number'
  return 'long' if len(text) > 40 else 'text'
