"""Images beside a table: each is checked, and becomes text in the row.

So later steps need no other file, and every digest over rows covers their images too.
"""

import base64
import warnings
from pathlib import Path, PurePosixPath

from lorry_components.data.faults import shorten
from lorry_registry.errors import InvalidValueError

MIN_SIDE = 64
_MAX_BYTES = 32 * 2**20
_MAX_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""The endings of image files, in lower case."""


def list_images(folder: Path) -> list[str]:
    """Return the names of the image files in a folder and below it, sorted; none behind links out of it."""
    root = folder.resolve()
    images = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    return sorted(
        path.relative_to(folder).as_posix()
        for path in images
        if path.is_file() and path.resolve().is_relative_to(root)
    )


def read_image(folder: Path, name: str) -> str:
    """Check an image and return the bytes of its file in base64.

    Args:
        folder: The folder of the table that names it; nothing outside is read.
        name: The name of its file, relative to the folder.

    Raises:
        ValueError: There is no such file in the folder, or it is no image that can be used; the message says
            why.
    """
    shown = shorten(name)
    path = _find_file(folder, name)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidValueError(f"{shown!r} is over {_MAX_BYTES >> 20} MiB large", "scale it down")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{shown!r} cannot be read: {error.strerror or error}") from error
    width, height = _measure(path, shown)
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{shown!r} is {width}x{height} pixels; each side needs {MIN_SIDE} or more")
    return base64.b64encode(content).decode("ascii")


def _find_file(folder: Path, name: str) -> Path:
    shown = shorten(name)
    pure = PurePosixPath(name)
    if not name.strip() or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{shown!r} is not the name of a file in the folder of the table")
    if pure.suffix.lower() not in IMAGE_ENDINGS:
        # What the digest of the source covers is known by these.
        raise ValueError(f"{shown!r} does not end in {', '.join(IMAGE_ENDINGS)}")
    path = folder / pure
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {shown!r} beside the table")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidValueError(
                f"{shown!r} is a link that leads out of the folder", "put the file itself there"
            )
    except OSError as error:
        # A name that is too long, for example.
        raise ValueError(f"{shown!r} cannot be looked at: {error.strerror or error}") from error
    return path


def _measure(path: Path, shown: str) -> tuple[int, int]:
    """Decode an image in full, so that one which is cut short fails now; return its width and height."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns of images that unpack to very many pixels.
            warnings.simplefilter("error")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise ValueError(f"{shown!r} has over {_MAX_PIXELS // 10**6} million pixels")
                image.load()
                return image.width, image.height
    except UnidentifiedImageError as error:
        raise ValueError(f"{shown!r} is not an image in the format {', '.join(_FORMATS)}") from error
    except (OSError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        # A SyntaxError is what Pillow calls a damaged PNG.
        raise ValueError(f"{shown!r} is damaged: {shorten(str(error), 120)}") from error
