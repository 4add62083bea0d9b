"""Decodes the bytes of one image file, or explains why it cannot be used.

In: untrusted bytes. Out: an upright PIL image in RGB. These rules apply to training and serving:
    the format (JPEG, PNG, WebP or BMP) is detected from the bytes, never from the name
    the image is rotated according to its EXIF orientation
    grey, palette and CMYK images are converted to RGB with Pillow's formulas, without colour profiles
    transparent pixels become white
    refused: 16 bits or floats per channel, animations, truncated files, and more pixels than MOST_PIXELS
The size is read from the header before any pixel is decoded. Errors name properties of the file, never its content.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

from s3t_ray.data.row_fields import MalformedRow

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 32 << 20
"""Maximum size of an encoded image."""
MOST_PIXELS = 1 << 26
"""Maximum size of a decoded image: 8,192 x 8,192 pixels, 192 MiB in memory."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_ANIMATED = ("PNG", "WEBP")
"""Formats with animation frames. A JPEG with several images (as phones store depth maps) counts as its first image."""
_TRANSPARENT = ("RGBA", "LA", "PA")
_PLAIN = ("RGB", "L", "1", "P", "CMYK", "YCbCr")
_BROKEN: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError),
    *(struct.error, zlib.error, NotImplementedError),
)
"""Errors that Pillow's decoders raise for damaged files."""


def read_image(data: bytes) -> Image:
    """Decode the image in `data`. Raises MalformedRow."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise MalformedRow("the image has no bytes")
    if len(data) > MOST_BYTES:
        raise MalformedRow(
            f"the image has {len(data):,} bytes, more than {MOST_BYTES:,}", "make it smaller, or remove the row"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # about unusual metadata, which is not used
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                _check(opened)
                opened.load()
                return _upright_rgb(ImageOps.exif_transpose(opened))
        except UnidentifiedImageError as error:
            raise MalformedRow(
                f"the image is not one of {', '.join(FORMATS)}", "convert it to PNG, or remove the row"
            ) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large() from error
        except MalformedRow:
            raise
        except _BROKEN as error:
            raise MalformedRow(
                f"the image cannot be decoded: {type(error).__name__}; it is truncated or damaged",
                "restore the image, or remove the row",
            ) from error


def _check(image: Image) -> None:
    """Raise MalformedRow if the header shows that the image is not supported."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large()
    if image.format in _ANIMATED and getattr(image, "n_frames", 1) != 1:
        raise MalformedRow("the image is an animation", "keep one frame, or remove the row")
    if image.mode not in (*_TRANSPARENT, *_PLAIN):
        raise MalformedRow(
            f"the image has pixels of mode {image.mode}, not 8 bits per channel", "convert it to 8 bits per channel"
        )


def _upright_rgb(image: Image) -> Image:
    from PIL import Image as Images

    if image.mode in _TRANSPARENT or "transparency" in image.info:
        shown = image.convert("RGBA")
        white = Images.new("RGBA", shown.size, (255, 255, 255, 255))
        return Images.alpha_composite(white, shown).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_large() -> MalformedRow:
    return MalformedRow(f"the image has more than {MOST_PIXELS:,} pixels", "make it smaller, or remove the row")
