"""How an image becomes what the model reads: a section of the config, in a file of its own.

Nothing random is done to an image, so its pixels follow from its bytes, these settings and the version of Pillow,
which each stage's manifest names. What is left at null is taken from the base's preprocessor_config.json, whose bytes
are part of the base's digest. Never imports torch or Pillow.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from s3t_ray.config.model_shape import Section

Resize = Literal["stretch", "crop"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Colour = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0)]


class Pixels(Section):
    """How an image becomes what the model reads. null: as the base's preprocessor_config.json says."""

    size: PositiveInt | None = None
    """Side of the square that the model reads, in pixels; it must be the base's own. Recipe, where set."""
    resize: Resize | None = None
    """`stretch`: both sides to `size`, whatever the image's proportions. `crop`: the largest square in the middle.
    Recipe, where set."""
    resample: Resample | None = None
    """Filter of the resizing. Recipe, where set."""
    mean: tuple[Colour, Colour, Colour] | None = None
    """Mean of red, green and blue, of values from 0 to 1, that is subtracted. Recipe, where set."""
    std: tuple[Spread, Spread, Spread] | None = None
    """Standard deviation of red, green and blue, by which they are divided. Recipe, where set."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        return tuple(name for name, value in self if value is not None)
