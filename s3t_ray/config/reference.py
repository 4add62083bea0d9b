"""Generates docs/config.md from the schema, so that the page always matches the code.

`python -m s3t_ray.config.reference > docs/config.md` writes the page. A test checks that it is up to date.
"""

from __future__ import annotations

import sys

from s3t_ray.config.fields import SectionDoc, sections
from s3t_ray.config.load import ready_configs, ready_text

_HEAD = """\
# Configuration

<!-- Generated: python -m s3t_ray.config.reference > docs/config.md -->

One YAML file configures a run. Start from a ready config, by its name (`{ready}`).
Any field can be overridden with `section.field=value`, with the value in YAML.

A config is checked before anything starts. Unknown fields, wrong types and settings that do not fit
together are refused with an error that names the line, the value and the fix. So are YAML aliases and
duplicate fields. Relative local paths are resolved against the current folder.

Fields marked **Recipe** affect the trained weights. Changing one changes the stage ids, so an existing
run refuses the change, and a new run trains from scratch. All other fields can change between two
starts of a run. The digest of the base model's bytes is also part of the recipe. Numbers without a
unit are counts.
"""


def reference_markdown() -> str:
    """The page as Markdown."""
    parts = [_HEAD.format(ready="`, `".join(ready_configs()))]
    parts += [_section(section) for section in sections()]
    parts.append(f"## A complete config\n\nThe ready config `demo`:\n\n```yaml\n{ready_text('demo')}```\n")
    return "\n".join(parts)


def _section(section: SectionDoc) -> str:
    title = f"## `{section.path}`" if section.path else "## Top level"
    doc = section.doc if section.path else "Settings of the run."
    lines = [title, "", doc, "", "| field | values | default | recipe | description |", "|---|---|---|---|---|"]
    for field in section.fields:
        default = "required" if field.default is None else f"`{field.default}`"
        recipe = "**Recipe**" if field.decides_weights else ""
        cells = [f"`{field.name}`", field.takes, default, recipe, field.doc.removesuffix(" Recipe.")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
