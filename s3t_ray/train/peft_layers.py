"""The parts of PEFT that the engine uses, without bitsandbytes unless the base is quantized.

If bitsandbytes is installed, PEFT imports it when it is imported and when it adds layers. That takes 3 CPU seconds in
every process, to define layers that a base of plain weights does not use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_BITSANDBYTES = "bitsandbytes"


@contextmanager
def _hidden() -> Iterator[None]:
    """Mark bitsandbytes as absent, unless it has been imported: then it is needed, or costs nothing more."""
    if _BITSANDBYTES in sys.modules:
        yield
        return
    sys.modules[_BITSANDBYTES] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_BITSANDBYTES]


with _hidden():
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora import model as _lora_model

__all__ = ["LoraConfig", "LoraLayer", "add_lora_layers"]


def add_lora_layers(settings: LoraConfig, model: nn.Module, adapter: str) -> None:
    """Put an adapter on the modules of `model` that `settings` names. `model`: with its weights loaded."""
    if _BITSANDBYTES in sys.modules:
        inject_adapter_in_model(settings, model, adapter_name=adapter)
        return
    # PEFT remembers whether bitsandbytes is installed, so hiding the module would come too late or last too long.
    names = ("is_bnb_available", "is_bnb_4bit_available")
    functions = {name: getattr(_lora_model, name) for name in names}
    for name in names:
        setattr(_lora_model, name, lambda: False)
    try:
        inject_adapter_in_model(settings, model, adapter_name=adapter)
    finally:
        vars(_lora_model).update(functions)
