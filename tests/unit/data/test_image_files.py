"""Bytes into a picture: what is taken, how it is turned into RGB, and what is refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from s3t_ray.data.images.image_file import MOST_PIXELS, read_image
from s3t_ray.data.images.image_hash import hash_bits
from s3t_ray.data.row_fields import MalformedRow
from tests.images import encoded, picture, png

JPEG = encoded(picture(1, side=32), "JPEG")


def array(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8)


def with_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this size."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(50))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_the_bytes_say_what_the_file_is(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(array(read_image(encoded(picture(3), kind, **options))), array(picture(3)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes"),
        (b"this is text", "not one of JPEG, PNG, WEBP, BMP"),
        (encoded(picture(1), "GIF"), "not one of JPEG, PNG, WEBP, BMP"),
        (encoded(picture(1), "TIFF"), "not one of JPEG, PNG, WEBP, BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not one of"),
        (JPEG[: len(JPEG) // 2], "truncated or damaged"),
        (png(1)[: len(png(1)) // 2], "truncated or damaged"),
        (with_header(9_000, 9_000), f"more than {MOST_PIXELS:,} pixels"),
        (with_header(60_000, 60_000), f"more than {MOST_PIXELS:,} pixels"),
        (encoded(Image.new("I;16", (8, 8))), "not 8 bits per channel"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedRow, match=reason) as caught:
        read_image(data)
    assert str(data[:8]) not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    data = encoded(picture(1), kind, save_all=True, append_images=[picture(2), picture(3)])
    with pytest.raises(MalformedRow, match="animation"):
        read_image(data)


def test_a_jpeg_of_a_phone_is_its_first_picture() -> None:
    both = encoded(picture(1, side=32), "MPO", save_all=True, append_images=[picture(2, side=32)])
    assert np.array_equal(array(read_image(both)), array(read_image(encoded(picture(1, side=32), "MPO"))))


def test_grey_palette_and_cmyk_become_rgb() -> None:
    for mode in ("L", "1", "P"):
        made = picture(4).convert(mode)
        assert np.array_equal(array(read_image(encoded(made))), array(made.convert("RGB")))
    cmyk = read_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    red, green, blue = array(cmyk)[4, 4]
    assert cmyk.mode == "RGB" and red > 250 and green < 5 and blue < 5


def test_what_is_transparent_shows_white() -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    seen = read_image(encoded(clear))
    assert seen.getpixel((0, 0)) == (10, 20, 30) and seen.getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9, 70, 80, 90])
    palette.putpixel((0, 0), 1)
    seen = read_image(encoded(palette, transparency=0))
    assert seen.getpixel((0, 0)) == (70, 80, 90) and seen.getpixel((2, 2)) == (255, 255, 255)
    opaque = picture(5).convert("RGBA")
    assert np.array_equal(array(read_image(encoded(opaque))), array(picture(5)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(6).resize((12, 20))
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    seen = read_image(file.getvalue())
    assert seen.size == ((12, 20) if orientation < 5 else (20, 12))
    file.seek(0)
    assert np.array_equal(array(seen), array(ImageOps.exif_transpose(Image.open(file)).convert("RGB")))
    assert np.array_equal(array(seen), array(stored)) == (orientation == 1)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_damaged_bytes_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(picture(7), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        assert read_image(cut).mode == "RGB"
    except MalformedRow as error:
        assert "image" in str(error)


def test_the_perceptual_hash_sees_through_size_and_compression() -> None:
    def jaccard(one: bytes, other: bytes) -> float:
        first, second = set(hash_bits(one)), set(hash_bits(other))
        assert len(first) == len(second) == 64
        return len(first & second) / len(first | second)

    large = picture(8, side=96)
    again = encoded(large.resize((60, 60)), "JPEG", quality=60)
    assert jaccard(encoded(large), again) >= 0.8
    assert jaccard(encoded(large), encoded(picture(9, "stripes", 96))) < 0.6
