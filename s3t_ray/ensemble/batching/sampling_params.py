"""The validated settings of one generation, importable without torch.

In: the caller's settings. Out: a frozen value. Raises ConfigError for settings out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.errors import ConfigError

MOST_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen from the averaged logits, and when to stop.

    Penalties are applied to the logits first. With `temperature` 0, the most likely token is chosen. Otherwise one
    token is drawn from those that pass `top_k`, `min_p` and `top_p`, each applied to the probabilities at this
    temperature. The draw depends on `seed` and on the number of tokens drawn before, never on other requests.
    """

    max_new_tokens: int
    """0: only read the prompt, to score it."""
    temperature: float = 0.0
    top_p: float = 1.0
    """Draw from the smallest set of most likely tokens whose total probability reaches this."""
    seed: int = 0
    top_k: int = 0
    """Draw from this many of the most likely tokens; 0: from all."""
    min_p: float = 0.0
    """Exclude tokens whose probability is below this fraction of the highest one."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that is already in the answer."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once per occurrence in the answer."""
    repetition_penalty: float = 1.0
    """Divides the positive logits, and multiplies the negative ones, of tokens in the prompt or the answer."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""
    logprobs: int | None = None
    """Report each token's log-probability, and those of this many most likely tokens. None: report none."""
    prompt_logprobs: bool = False
    """Report log-probabilities for the prompt's tokens as well."""
    ignore_eos: bool = False
    """Continue to `max_new_tokens` even after an end-of-sequence token. For benchmarks."""

    def __post_init__(self) -> None:
        least = 0 if self.prompt_logprobs else 1
        self._check("max_new_tokens", self.max_new_tokens >= least, f"{least} or more", "request at least 1 token")
        self._check("temperature", self.temperature >= 0, "0 or more", "use 0 for the most likely token")
        self._check("top_p", 0 < self.top_p <= 1, "above 0 and at most 1", "use 1 to draw from all tokens")
        self._check("top_k", self.top_k >= 0, "0 or more", "use 0 to draw from all tokens")
        self._check("min_p", 0 <= self.min_p <= 1, "between 0 and 1", "use 0 to draw from all tokens")
        self._check("repetition_penalty", self.repetition_penalty > 0, "above 0", "use 1 for none")
        self._check("stop", all(self.stop), "non-empty texts", "remove the empty text")
        in_range = self.logprobs is None or 0 <= self.logprobs <= MOST_LOGPROBS
        self._check("logprobs", in_range, f"between 0 and {MOST_LOGPROBS}", "request fewer")

    def _check(self, name: str, holds: bool, needed: str, fix: str) -> None:
        if not holds:
            raise ConfigError(f"{name} must be {needed}, got {getattr(self, name)!r}", fix)

    @property
    def counts_tokens(self) -> bool:
        """Whether a penalty needs the tokens generated so far."""
        return bool(self.presence_penalty or self.frequency_penalty) or self.repetition_penalty != 1.0
