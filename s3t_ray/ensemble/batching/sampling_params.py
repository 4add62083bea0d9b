"""How one answer is generated: checked settings, importable without torch.

In: what a caller asked for. Out: a frozen value. Raises ConfigError for settings out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.errors import ConfigError

MOST_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen from the averaged logits, and when to stop.

    Penalties change the logits first. `temperature` 0 then takes the likeliest token. Otherwise one token is drawn
    from those that pass `top_k`, `min_p` and `top_p`, each judged on the probabilities at this temperature. The draw
    depends on `seed` and on how many tokens were drawn before, never on other requests.
    """

    max_new_tokens: int
    """0 only reads the prompt, to score it."""
    temperature: float = 0.0
    top_p: float = 1.0
    """Draw from the smallest set of likeliest tokens whose probabilities reach this."""
    seed: int = 0
    top_k: int = 0
    """Draw from this many likeliest tokens; 0: all."""
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest one's probability."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the answer holds already."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit once for each time that the answer holds it."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens that the prompt or the answer holds."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    logprobs: int | None = None
    """Report each token's log-probability, and those of this many likeliest tokens. None: report nothing."""
    prompt_logprobs: bool = False
    """Report them for the tokens of the prompt too."""
    ignore_eos: bool = False
    """Go on to `max_new_tokens` whatever the model says: for measurements."""

    def __post_init__(self) -> None:
        least = 0 if self.prompt_logprobs else 1
        self._check("max_new_tokens", self.max_new_tokens >= least, f"{least} or more", "ask for 1 token or more")
        self._check("temperature", self.temperature >= 0, "0 or more", "use 0 for the likeliest token")
        self._check("top_p", 0 < self.top_p <= 1, "over 0 and at most 1", "use 1 to draw from all tokens")
        self._check("top_k", self.top_k >= 0, "0 or more", "use 0 to draw from all tokens")
        self._check("min_p", 0 <= self.min_p <= 1, "between 0 and 1", "use 0 to draw from all tokens")
        self._check("repetition_penalty", self.repetition_penalty > 0, "over 0", "use 1 for none")
        self._check("stop", all(self.stop), "texts that are not empty", "leave the empty text out")
        in_range = self.logprobs is None or 0 <= self.logprobs <= MOST_LOGPROBS
        self._check("logprobs", in_range, f"between 0 and {MOST_LOGPROBS}", "ask for fewer")

    def _check(self, name: str, holds: bool, needed: str, fix: str) -> None:
        if not holds:
            raise ConfigError(f"{name} must be {needed}, got {getattr(self, name)!r}", fix)

    @property
    def counts_tokens(self) -> bool:
        """Whether penalties need to know which tokens were said."""
        return bool(self.presence_penalty or self.frequency_penalty) or self.repetition_penalty != 1.0
