"""Converts encoded images to a base model's input, deterministically.

In: the base's preprocessor_config.json and `task.pixels`. Out: an ImageTransform, the counterpart of a tokenizer.
There is no random augmentation, which would have to be seeded per record to keep stages reproducible.
Legend: S side of the square that the model reads, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from s3t_ray.config.base_files import read_json
from s3t_ray.config.base_model import PREPROCESSOR
from s3t_ray.config.schema import Task
from s3t_ray.config.task_section import Pixels, Resample, Resize
from s3t_ray.data.images.image_file import read_image
from s3t_ray.data.row_fields import MalformedRow
from s3t_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_RESAMPLES: dict[object, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's filter numbers, as in preprocessor_config.json -> filter names."""
_FIX = "correct it, or set task.pixels"


@dataclass(frozen=True)
class ImageTransform:
    """Resizes and normalizes images of any size."""

    size: int  # S
    patch: int  # side of one of the model's patches, in pixels
    resize: Resize
    resample: Resample
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def tokens(self) -> int:
        """The number of positions per image: its patches, and the one for the classification."""
        return (self.size // self.patch) ** 2 + 1

    def pixels(self, data: bytes) -> NDArray[np.float32]:
        """The model input [3 x S x S] for an encoded image. Raises MalformedRow."""
        square = np.asarray(self._square(read_image(data)), dtype=np.float64) / 255.0
        normal = (square - np.asarray(self.mean)) / np.asarray(self.std)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)

    def _square(self, image: Image) -> Image:
        from PIL.Image import Resampling

        if self.resize == "crop":  # crop first, so that the long side of a narrow image is never enlarged
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        return image.resize((self.size, self.size), Resampling[self.resample.upper()])


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image with its transform. It stays encoded because a stage holds the images of all its records."""

    data: bytes
    transform: ImageTransform

    def pixels(self) -> NDArray[np.float32]:
        """The model input [3 x S x S]. Raises DataError if an image that was valid at ingest cannot be decoded here."""
        try:
            return self.transform.pixels(self.data)
        except MalformedRow as error:
            raise DataError(
                f"an image of the run cannot be decoded: {error}", "install the same Pillow on every node"
            ) from error


def read_transform(folder: Path, task: Task) -> ImageTransform:
    """The transform of the base in `folder`, with the changes in `task.pixels`.

    Raises ConfigError if settings are missing, invalid or do not fit the model.
    """
    told = _of_base(folder) if (folder / PREPROCESSOR).is_file() else Pixels()
    wanted = Pixels.model_validate(told.model_dump() | {name: getattr(task.pixels, name) for name in task.pixels.given})
    missing = [name for name in Pixels.model_fields if name not in wanted.given]
    if missing:
        raise ConfigError(
            f"{folder} has no {PREPROCESSOR}, and task.pixels leaves out {', '.join(missing)}",
            "save the image processor there too, or set all fields of task.pixels",
        )
    assert wanted.size and wanted.resize and wanted.resample and wanted.mean and wanted.std
    model = read_json(folder / "config.json")
    side, patch = model.get("image_size"), int(model["patch_size"])
    if side != wanted.size:
        raise ConfigError(
            f"images of {wanted.size} x {wanted.size} pixels do not fit the model in {folder}, which reads {side} x "
            f"{side}",
            f"set task.pixels.size to {side}",
        )
    return ImageTransform(wanted.size, patch, wanted.resize, wanted.resample, wanted.mean, wanted.std)


def _of_base(folder: Path) -> Pixels:
    path = folder / PREPROCESSOR
    told = read_json(path)
    crops = bool(told.get("do_center_crop", False))
    _check_steps(told, path)
    resample = _RESAMPLES.get(told.get("resample", 2))
    if resample is None:
        raise ConfigError(f"{path}: resample {told['resample']!r} is not one of {sorted(map(str, _RESAMPLES))}", _FIX)
    sides = told.get("crop_size" if crops else "size", 224)
    try:
        return Pixels.model_validate(
            {
                "size": _side(sides, path),
                "resize": "crop" if crops else "stretch",
                "resample": resample,
                "mean": tuple(told.get("image_mean", (0.5, 0.5, 0.5))),
                "std": tuple(told.get("image_std", (0.5, 0.5, 0.5))),
            }
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not valid: {str(error).splitlines()[0]}", _FIX) from error


def _check_steps(told: Any, path: Path) -> None:
    """Raise ConfigError if a step is disabled, or pixels are not scaled from 0..255 to 0..1."""
    left_out = [name for name in ("do_resize", "do_rescale", "do_normalize") if told.get(name, True) is not True]
    factor = told.get("rescale_factor", 1 / 255)
    if left_out:
        raise ConfigError(f"{path}: {left_out[0]} is {told[left_out[0]]!r}, but only true is supported", _FIX)
    if not isinstance(factor, int | float) or abs(factor - 1 / 255) > 1e-9:
        raise ConfigError(f"{path}: rescale_factor {factor!r} is not 1/255", _FIX)


def _side(told: object, path: Path) -> int:
    sides = told.values() if isinstance(told, dict) else (told,)
    found = {side for side in sides if type(side) is int and side > 0}
    if len(found) != 1 or len(found) != len(set(sides)):
        raise ConfigError(f"{path}: size {told!r} is not one number of pixels", _FIX)
    return found.pop()


assert set(_RESAMPLES.values()) == set(get_args(Resample))
