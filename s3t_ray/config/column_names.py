"""The config sections that map the column and role names in the data to ours.

They do not affect the weights: a record's identity depends on its content, not on column names.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s3t_ray.config.model_shape import Section

Text = Annotated[str, Field(min_length=1)]


class Columns(Section):
    """Names of the data's columns, if they differ from ours. If one is set, only the columns set here are read."""

    instruction: Text | None = None
    """Column with the instruction or question."""
    input: Text | None = None
    """Column with the instruction's input or context."""
    output: Text | None = None
    """Column with the response."""
    messages: Text | None = None
    """Column with a conversation: a list of messages."""
    text: Text | None = None
    """Column with plain text, or with the text to classify."""
    label: Text | None = None
    """Column with the class."""
    image: Text | None = None
    """Column with the image, for `task.kind: image_classification`."""
    system: Text | None = None
    """Column with a system prompt, put before the conversation."""
    tools: Text | None = None
    """Column with the tools (JSON schemas) that a conversation offers."""
    history: Text | None = None
    """Column with earlier turns: pairs of question and answer."""


class Roles(Section):
    """Role names in the data's messages, in addition to the known ones: system, user, assistant, tool, human, gpt, bot,
    model, developer and function."""

    system: tuple[Text, ...] = ()
    """Names of the system prompt's role."""
    user: tuple[Text, ...] = ()
    """Names of the user's role."""
    assistant: tuple[Text, ...] = ()
    """Names of the assistant's role, which is learned."""
    tool: tuple[Text, ...] = ()
    """Names of the role for results of tools."""
