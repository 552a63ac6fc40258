"""Tests of writing PNG files."""
import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from mentormix.data import png as png_lib


@pytest.mark.parametrize('size', [32, 148, 256, 512])
def test_png_is_stored_and_valid(size):
  image = np.random.RandomState(0).randint(
      0, 256, size=[size, size, 3]).astype(np.uint8)
  png = png_lib.encode_png(image)
  np.testing.assert_array_equal(Image.open(io.BytesIO(png)), image)
  # Filter 0 in every row, and nothing compressed.
  length, = struct.unpack('>I', png[33:37])
  rows = np.frombuffer(zlib.decompress(png[41:41 + length]), np.uint8)
  assert not rows.reshape(size, -1)[:, 0].any()
  blocks = -(-size * (1 + 3 * size) // 65535)
  assert len(png) == size * (1 + 3 * size) + 5 * blocks + 63
