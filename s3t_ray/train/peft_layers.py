"""The parts of PEFT that the engine uses, imported without bitsandbytes.

If bitsandbytes is installed, PEFT imports it, which takes more than a second per process, to define layers that the
engine does not use: the engine presents quantized layers to PEFT as plain linear layers (`quantised.py`).
"""

from __future__ import annotations

import sys

_HIDDEN = "bitsandbytes" not in sys.modules
if _HIDDEN:
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # marks the module as absent
try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
finally:
    if _HIDDEN:
        del sys.modules["bitsandbytes"]

__all__ = ["LoraConfig", "LoraLayer", "inject_adapter_in_model"]
