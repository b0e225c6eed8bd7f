"""Images as text and as arrays."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image, shape (height, width, 3)."""


def decode_image(text: str, side: int | None = None) -> Pixels:
    """Return an image that was kept as text.

    Args:
        text: The bytes of its file, in base64.
        side: Scale the shorter side to so many pixels and cut out the middle square; None: leave it as it is.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(base64.b64decode(text))) as stored:
        image = ImageOps.exif_transpose(stored).convert("RGB")
    if side is not None:
        image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encode_image(pixels: Pixels) -> str:
    """Return an image as the bytes of a PNG, in base64: equal images give equal texts."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def arrange_images(rows: Sequence[Sequence[Pixels]], gap: int = 4) -> Pixels:
    """Return a sheet of images of one size, row by row, on white."""
    side = rows[0][0].shape[0]
    columns = max(map(len, rows))
    shape = (len(rows) * (side + gap) - gap, columns * (side + gap) - gap, 3)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (side + gap), j * (side + gap)
            sheet[top : top + side, left : left + side] = image
    return sheet
