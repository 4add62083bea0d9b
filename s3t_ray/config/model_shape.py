"""The sizes of a base model, for planning without its weights and without torch.

In: the numbers in a config.json (or the `model.shape` section). Out: parameter counts. Never reads a
file; `base_model.py` does that.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt


class Section(BaseModel):
    """Base class of all config sections: rejects unknown fields, and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelShape(Section):
    """Sizes of the base model, as in its config.json. With them, `s3t plan` needs no download."""

    layers: PositiveInt
    """Number of transformer layers."""
    hidden: PositiveInt
    """Width of a hidden state."""
    intermediate: PositiveInt
    """Width inside the MLP."""
    heads: PositiveInt
    """Number of attention heads."""
    kv_heads: PositiveInt
    """Number of key-value heads; equal to `heads` without grouped-query attention."""
    vocabulary: PositiveInt
    """Rows of the embedding."""
    tied_embeddings: bool = False
    """Whether the vocabulary head shares the embedding's weights, so that they count once."""
    head_size: PositiveInt | None = None
    """Width of one attention head; null: hidden / heads."""
    gated_mlp: bool = True
    """Whether a layer has three MLP matrices (Llama, Mistral, Qwen) instead of two (BERT, RoBERTa)."""
    positions: PositiveInt | None = None
    """Maximum number of tokens that the model can read; null: unknown."""

    @property
    def head_dim(self) -> int:
        return self.head_size or self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """The number of weights in one layer (attention and MLP; norms and biases are negligible)."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + (3 if self.gated_mlp else 2) * self.hidden * self.intermediate

    @property
    def head_parameters(self) -> int:
        """The number of weights in the vocabulary head, and in the embedding."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """The number of weights in the model."""
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings
