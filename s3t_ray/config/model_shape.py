"""Sizes of a base model, so that a plan needs neither its weights nor torch.

In: the numbers of a config.json (or the `model.shape` section). Out: parameter counts. Must never
read a file; `base_model.py` does.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt


class Section(BaseModel):
    """What every section of the config is: strict about its fields, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelShape(Section):
    """Sizes of the base model, as in its config.json. Given here, `s3t plan` needs no download."""

    layers: PositiveInt
    """Transformer layers."""
    hidden: PositiveInt
    """Width of a hidden state."""
    intermediate: PositiveInt
    """Width inside the MLP."""
    heads: PositiveInt
    """Attention heads."""
    kv_heads: PositiveInt
    """Heads for keys and values; as many as `heads` without grouped queries."""
    vocabulary: PositiveInt
    """Rows of the embedding."""
    tied_embeddings: bool = False
    """Whether the vocabulary head is the embedding itself (then it is counted once)."""
    head_size: PositiveInt | None = None
    """Width of one attention head; null: hidden / heads."""
    gated_mlp: bool = True
    """Three MLP matrices (Llama, Mistral, Qwen) or two (BERT, RoBERTa)."""
    positions: PositiveInt | None = None
    """Most tokens the model can take; null: not known."""

    @property
    def head_dim(self) -> int:
        return self.head_size or self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer (attention and MLP; norms and biases are negligible)."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + (3 if self.gated_mlp else 2) * self.hidden * self.intermediate

    @property
    def head_parameters(self) -> int:
        """Weights of the vocabulary head (and of the embedding)."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings
