"""The parts of PEFT that the engine uses, imported without bitsandbytes.

PEFT imports that wherever it is installed, more than a second a process, for layers of its own that take part in
nothing here: to it a quantised layer is a linear one (`quantised.py`).
"""

from __future__ import annotations

import sys

_HIDDEN = "bitsandbytes" not in sys.modules
if _HIDDEN:
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # how Python says that a module is absent
try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
finally:
    if _HIDDEN:
        del sys.modules["bitsandbytes"]

__all__ = ["LoraConfig", "LoraLayer", "inject_adapter_in_model"]
