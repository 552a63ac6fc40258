"""The page with the pictures of the most suspicious labels.

One HTML file that needs no other file and no network.
"""
import base64
import io
import os
import typing

import jinja2
from PIL import Image

from mentormix import files
from mentormix.data import image_folders

_PIXELS = 240  # Longer side of a picture.


class Example(typing.NamedTuple):
  """An example with a suspicious label."""
  id: str  # Of the image: a path, or its index in the archive.
  given: str  # The name of the class given.
  proposed: str  # That of the class with the highest probability.
  given_probability: float
  probability: float  # Of the proposed class.
  clean: typing.Optional[str]  # The name of the right class, if it is known.


def write(path, examples, images, title, count, num_suspected, scores,
          image_dir=''):
  """Writes the page.

  Args:
    path: of the HTML file.
    examples: a list of `Example`s, the most suspicious first.
    images: uint8 [N, H, W, 3], as the network saw them, in the same order.
    title: of the page.
    count: how many examples were scored.
    num_suspected: how many labels are suspected.
    scores: name of the file with all examples.
    image_dir: the folder in which the ids are paths of the images; '' shows
      `images`. So do images that are not there or cannot be read.
  """
  rows = []
  for example, image in zip(examples, images):
    original = _original(image_dir, example.id)
    kind, data = original or ('png', _encoded(Image.fromarray(image), 'PNG'))
    percent = lambda p: f'{100 * p:.1f}%'
    rows.append(dict(
        example._asdict(), kind=kind, data=base64.b64encode(data).decode(),
        is_small=original is None, probability=percent(example.probability),
        given_probability=percent(example.given_probability)))
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mentormix'), trim_blocks=True,
      autoescape=jinja2.select_autoescape(), keep_trailing_newline=True)
  page = environment.get_template('suspicious.html').render(
      title=title, examples=rows, count=count, num_suspected=num_suspected,
      scores=scores)
  with files.replaced(path, 'wb') as f:  # A name may not be valid text.
    f.write(page.encode('utf-8', 'backslashreplace'))


def _original(image_dir, name):
  """(kind, bytes) of a small copy of an image; None if there is none."""
  if not image_dir:
    return None
  try:
    image = image_folders.upright(files.contents(
        os.path.join(image_dir, name), image_folders.MAX_BYTES))
    image.thumbnail((_PIXELS, _PIXELS))
    return 'jpeg', _encoded(image, 'JPEG')
  except Exception:  # Damaged data can cause any error.
    return None


def _encoded(image, kind):
  """The bytes of a Pillow image as a file."""
  stream = io.BytesIO()
  image.save(stream, kind)
  return stream.getvalue()
