"""Generates docs/config.md from the schema, so that the page cannot fall behind the code.

In: nothing. Out: Markdown. `python -m s3t_ray.config.reference > docs/config.md` writes the page; a
test keeps it equal.
"""

from __future__ import annotations

import sys

from s3t_ray.config.fields import SectionDoc, sections
from s3t_ray.config.load import ready_configs, ready_text

_HEAD = """\
# Configuration

<!-- Generated: python -m s3t_ray.config.reference > docs/config.md -->

A run is one YAML file. Start from a ready one, by its name (`{ready}`).
Any field can be overridden as `section.field=value`, the value in YAML.

A config is refused before anything starts: an unknown field, a wrong type, or settings that do not
go together are named with the line, the value and the fix. YAML aliases and fields given twice are
refused too. Relative local paths are taken from the current folder.

Fields under **Recipe** decide the trained weights: changing one names new stages, so an existing run
refuses it and a new one trains from the start. The others may change between two starts of one run.
The base model's bytes are part of the recipe too, by their digest. Numbers without a unit are counts.
"""


def reference_markdown() -> str:
    """The whole page."""
    parts = [_HEAD.format(ready="`, `".join(ready_configs()))]
    parts += [_section(section) for section in sections()]
    parts.append(f"## A whole config\n\nThe ready config `demo`:\n\n```yaml\n{ready_text('demo')}```\n")
    return "\n".join(parts)


def _section(section: SectionDoc) -> str:
    title = f"## `{section.path}`" if section.path else "## At the top"
    doc = section.doc if section.path else "The run as a whole."
    lines = [title, "", doc, "", "| field | takes | default | recipe | what it does |", "|---|---|---|---|---|"]
    for field in section.fields:
        default = "required" if field.default is None else f"`{field.default}`"
        recipe = "**Recipe**" if field.decides_weights else ""
        cells = [f"`{field.name}`", field.takes, default, recipe, field.doc.removesuffix(" Recipe.")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
