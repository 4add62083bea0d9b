"""How the data calls its columns and who speaks in it, where that is not what we call them.

Sections of the config, in a file of their own. None of it decides weights by itself: records are named by their
content, however their columns were called.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from s3t_ray.config.model_shape import Section

Text = Annotated[str, Field(min_length=1)]


class Columns(Section):
    """Columns of the data that are called something else than ours. Once one is named, only those named are read."""

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
    system: Text | None = None
    """Column with a system prompt, put before the conversation."""
    tools: Text | None = None
    """Column with the tools (JSON schemas) that a conversation offers."""
    history: Text | None = None
    """Column with earlier turns: pairs of question and answer."""


class Roles(Section):
    """What the messages of the data call those who speak, beside system, user, assistant and tool themselves, and
    human, gpt, bot, model, developer and function, which are known."""

    system: tuple[Text, ...] = ()
    """Names of the system prompt's role."""
    user: tuple[Text, ...] = ()
    """Names of the role that asks."""
    assistant: tuple[Text, ...] = ()
    """Names of the role that is learned."""
    tool: tuple[Text, ...] = ()
    """Names of the role that gives results of tools."""
