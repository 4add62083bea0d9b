"""The task `image_classification`: an image with the name of its class.

The content is {"image", "label"}: the image file's bytes in base64, and the class name. So the record, its digest and
its purge cover exactly the original file. A row contains the bytes, a Hugging Face Image ({"bytes", "path"}), or a data
URL. Images are decoded once at ingest; one that cannot be decoded is a malformed row.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.data.chats.chat import Message
from s3t_ray.data.images.image_file import MOST_BYTES, read_image
from s3t_ray.data.images.image_hash import hash_bits
from s3t_ray.data.images.image_transform import Picture
from s3t_ray.data.labelled_records import class_name
from s3t_ray.data.row_fields import MalformedRow, type_name
from s3t_ray.data.task_records import Example, TaskRecords
from s3t_ray.errors import DataError

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")


class ImageRecords(TaskRecords):
    """Records that a vision model classifies. Expects an ImageTransform instead of a tokenizer."""

    def content(self, row: Mapping[str, object]) -> dict[str, object]:
        label = class_name(row, self.task)
        data = _bytes_of(row)
        read_image(data)
        return {"image": base64.b64encode(data).decode("ascii"), "label": label}

    def encode(self, content: Mapping[str, Any], tokenizer: Any) -> Example:
        picture = Picture(base64.b64decode(content["image"]), tokenizer)
        return _example(picture, self.task.labels.index(content["label"]))

    def prompt(self, prompt: str | Sequence[Message], tokenizer: Any) -> Example:
        """The input for one image. `prompt` is a data URL. Raises DataError."""
        if not isinstance(prompt, str):
            raise DataError(f"a {self.task.kind} model classifies one image, not chat messages", "send a data URL")
        try:
            picture = Picture(_from_url(prompt.strip()), tokenizer)
            read_image(picture.data)
        except MalformedRow as error:
            raise DataError(
                f"the image cannot be read: {error}", error.fix or "send a complete image as data:image/png;base64,..."
            ) from error
        return _example(picture, None)

    def shingles(self, content: Mapping[str, Any], words: int) -> list[bytes]:
        """The bits of the image's perceptual hash, each with its position. `words` is ignored."""
        return hash_bits(base64.b64decode(content["image"]))


def _example(picture: Picture, label: int | None) -> Example:
    return Example((0,) * picture.transform.tokens, (), label, picture=picture)


def _bytes_of(row: Mapping[str, object]) -> bytes:
    """The encoded image of a row."""
    value = row.get("image")
    if isinstance(value, Mapping) and {*value} <= {"bytes", "path"}:
        if value.get("bytes") is None and value.get("path") is not None:
            # A path in untrusted data could name any file on this machine.
            raise MalformedRow(
                "field 'image' holds only the path of a file",
                "store the images themselves (datasets: embed them), or set data.path to their folder",
            )
        value = value.get("bytes")
    if value is None:
        raise MalformedRow(
            "field 'image' is missing" if "image" not in row else "field 'image' is null",
            "set data.columns.image to the column of the images",
        )
    if isinstance(value, str):
        return _from_url(value)
    if not isinstance(value, bytes):
        raise MalformedRow(f"field 'image' is {type_name(value)}, not bytes or a data URL")
    return value


def _from_url(text: str) -> bytes:
    start = _DATA_URL.match(text)
    if start is None:
        raise MalformedRow("the image is text that is not a data URL", "write data:image/png;base64,...")
    if len(text) > MOST_BYTES * 4 // 3 + 100:
        raise MalformedRow(f"the image has more than {MOST_BYTES:,} bytes", "make it smaller, or remove the row")
    try:
        return base64.b64decode(text[start.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRow("the image's base64 is invalid or truncated") from error
