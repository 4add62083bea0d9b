"""The bytes of one image file into its pixels, or the reason why they are not an image that can be learned.

In: bytes from anywhere. Out: a PIL image in RGB, upright. What is decided here, once for training and serving:
    the bytes say what the file is, never its name: JPEG, PNG, WebP or BMP
    a picture is turned as its EXIF orientation says
    grey, palette and CMYK pictures become RGB by Pillow's formulas, without colour profiles
    what is transparent shows white
    refused: 16 bits or floats per channel, animations, files that end early, and more pixels than MOST_PIXELS
Sizes are read from the header before a pixel is decoded. Reasons name properties of the file, never its content.
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
"""Of an encoded image."""
MOST_PIXELS = 1 << 26
"""Of a decoded image: 8,192 x 8,192, 192 MiB in memory."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_ANIMATED = ("PNG", "WEBP")
"""Formats with frames. A JPEG with a second picture, as phones store a depth map, is its first picture."""
_TRANSPARENT = ("RGBA", "LA", "PA")
_PLAIN = ("RGB", "L", "1", "P", "CMYK", "YCbCr")
_BROKEN: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError),
    *(struct.error, zlib.error, NotImplementedError),
)
"""What Pillow's decoders raise for files that are not whole."""


def read_image(data: bytes) -> Image:
    """The picture that `data` encodes. Raises MalformedRow."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise MalformedRow("the image has no bytes")
    if len(data) > MOST_BYTES:
        raise MalformedRow(
            f"the image has {len(data):,} bytes, more than {MOST_BYTES:,}", "make it smaller, or remove the row"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of odd metadata, which is not used
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
    """Raise MalformedRow by what the header says."""
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
