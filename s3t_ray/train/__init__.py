"""The training engine: one stage on one worker group. torch and DeepSpeed, never Ray (DESIGN.md)."""

import logging

# PEFT imports it wherever it is installed, and on import it complains of a package that it can do without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
