"""PNG files, the same bytes on every machine."""
import struct
import zlib

import numpy as np

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_STORED_BYTES = 0xffff  # The most that a stored block of zlib holds.


def encode_png(image):
  """Encodes an image as a PNG file without compression.

  The same pixels give the same bytes everywhere, so a checksum of a data set is
  the same on every machine: the output of zlib's compression differs between
  its versions, stored blocks do not. They also decode faster.

  Args:
    image: uint8 [H, W, 3].

  Returns:
    Bytes.
  """
  height, width, _ = image.shape
  rows = np.zeros([height, 1 + 3 * width], np.uint8)  # Filter 0 in column 0.
  rows[:, 1:] = image.reshape(height, 3 * width)
  raw = rows.tobytes()
  stored = [b'\x78\x01']  # A zlib stream of stored blocks, the last one marked.
  for start in range(0, len(raw), _STORED_BYTES):
    block = raw[start:start + _STORED_BYTES]
    stored += [struct.pack('<BHH', start + len(block) == len(raw), len(block),
                           len(block) ^ 0xffff), block]
  stored.append(struct.pack('>I', zlib.adler32(raw)))
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)  # 8-bit RGB.
  return b''.join([
      SIGNATURE, _chunk(b'IHDR', header), _chunk(b'IDAT', b''.join(stored)),
      _chunk(b'IEND', b'')])


def _chunk(kind, data):
  return b''.join([struct.pack('>I', len(data)), kind, data,
                   struct.pack('>I', zlib.crc32(kind + data))])
