"""The bytes of an image -> those of an upright JPEG in RGB or grey.

A JPEG that is so already keeps its bytes. Whatever else is an image is encoded
as JPEG again: other formats, CMYK, images to be turned by their EXIF
orientation, images with transparency (on black), the first picture of an
animation, and images larger than asked.
"""
import io
import typing
import warnings

from PIL import Image

from mentormix.data import image_folders

QUALITY = 95  # Of an image that is encoded again.
_KEPT_MODES = ('RGB', 'L')
_ORIENTATION, _UPRIGHT = 0x0112, 1
_TURNS = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180,
          4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
          6: Image.ROTATE_270, 7: Image.TRANSVERSE,
          8: Image.ROTATE_90}


class Picture(typing.NamedTuple):
  """A JPEG."""
  jpeg: bytes
  is_new: bool  # Whether it was encoded again.


def convert(data, max_side=None):
  """Makes an upright JPEG.

  Args:
    data: the bytes of an image.
    max_side: the longer side of the result, at most, in pixels; None for any.

  Returns:
    A `Picture`.

  Raises:
    ValueError: it is no image, or damaged; the message says why.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      warnings.simplefilter('error', Image.DecompressionBombWarning)
      with Image.open(io.BytesIO(data), formats=image_folders.FORMATS) as image:
        return _convert(data, image, max_side)
  except Exception as error:  # Damaged data can cause any error.
    raise ValueError(image_folders.reason(error, data))


def _convert(data, image, max_side):
  turn = _TURNS.get(_orientation(image))
  too_large = max_side and max(image.size) > max_side
  if (image.format == 'JPEG' and image.mode in _KEPT_MODES
      and turn is None and not too_large):
    # Whether it is whole shows at an eighth of the size, too.
    image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()
    return Picture(data, False)
  image.load()
  upright = image_folders.to_rgb(image)
  if turn is not None:
    upright = upright.transpose(turn)
  if too_large:
    upright.thumbnail((max_side, max_side), Image.BICUBIC)
  stream = io.BytesIO()
  upright.save(stream, 'JPEG', quality=QUALITY)
  return Picture(stream.getvalue(), True)


def _orientation(image):
  """The EXIF orientation, 1 to 8; upright if EXIF is damaged."""
  try:
    return image.getexif().get(_ORIENTATION, _UPRIGHT)
  except Exception:  # Of a part that the picture does not need.
    return _UPRIGHT
