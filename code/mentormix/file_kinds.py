"""Says what a file is that is not what was expected, by its first bytes.

A download that failed leaves a web page, a clone without Git LFS a pointer, a
full disk an empty file. An error message that says so saves a search.
"""
import re

_KINDS = (  # Pattern at the beginning, what the file is.
    (rb'\s*<(?i:!doctype html|html|head|body)', 'a web page'),
    (rb'\s*<(?:\?xml|svg)', 'an XML file, such as an SVG drawing'),
    (rb'version https://git-lfs', 'a Git LFS pointer (run git lfs pull)'),
    (rb'\xd0\xcf\x11\xe0', 'a Windows file such as Thumbs.db or an old Excel '
                           'workbook'),
    (rb'\x89PNG', 'a PNG image'), (rb'\xff\xd8\xff', 'a JPEG image'),
    (rb'GIF8', 'a GIF image'), (rb'RIFF....WEBP', 'a WebP image'),
    (rb'II\*\0|MM\0\*', 'a TIFF image'), (rb'....ftyp(?:avif|heic|heix|mif1)',
                                          'a HEIF or AVIF image'),
    (rb'....ftyp', 'a video'), (rb'RIFF....AVI ', 'a video'),
    (rb'\x1f\x8b', 'a gzip file'), (rb'BZh', 'a bzip2 file'),
    (rb'\xfd7zXZ', 'an xz file'), (rb'7z\xbc\xaf', 'a 7z archive'),
    (rb'Rar!', 'a RAR archive'), (rb'PK\x03\x04', 'a zip archive'),
    (rb'\x89HDF|CDF', 'an HDF5 or NetCDF file'), (rb'PAR1', 'a Parquet file'),
    (rb'MATLAB 5', 'a MATLAB file'), (rb'%PDF', 'a PDF'),
    (rb'SQLite', 'a SQLite database'),
    (rb'\x93NUMPY', 'a NumPy array'), (rb'\x80[\x02-\x05]', 'a Python pickle'),
)
_READ = 512  # Bytes that say it.
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), what)
                  for pattern, what in _KINDS)


def what(data):
  """What a file is that begins with `data`, bytes.

  Returns:
    A phrase with its article, as in 'a web page'; None if it is not known.
  """
  if not data.strip():
    return 'an empty file'
  for pattern, name in _PATTERNS:
    if pattern.match(data[:_READ]):
      return name
  if len(data) > 257 and data[257:262] == b'ustar':
    return 'a tar archive'
  return None


def explain(path, expected=None):
  """Words for an error message: ', it is a web page', or '' if not known.

  A file of the `expected` kind, as `what` names it, that could not be read to
  its end is cut off.
  """
  try:
    with open(path, 'rb') as f:
      kind = what(f.read(_READ))
  except OSError:
    return ''
  if not kind:
    return ''
  return f', it is {"cut off" if kind == expected else kind}'
