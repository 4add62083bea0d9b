"""Small images for tests: one of two shapes, with colors derived from a number. Deterministic bytes."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

LABELS = ("square", "stripes")


def picture(number: int, label: str = "square", side: int = 20) -> Any:
    """A PIL image of this class."""
    from PIL import Image

    values = np.random.default_rng(number).integers(0, 80, (side, side, 3), dtype=np.uint8)
    if label == "square":
        corner = number % (side // 3)
        values[corner : corner + side // 2, corner : corner + side // 2] += 150
    else:
        values[:: 2 + number % 2] += 150
    return Image.fromarray(values)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(number: int, label: str = "square", side: int = 20) -> bytes:
    return encoded(picture(number, label, side))


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image_content(number: int, label: str) -> dict[str, str]:
    """What a record's content holds."""
    return {"image": base64.b64encode(png(number, label)).decode(), "label": label}
