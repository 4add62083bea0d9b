"""Numbers as people read them: counts, durations, bytes, FLOPs, slices in order.

In: plain numbers with the unit in the parameter's name. Out: short strings with the unit written out.
Pure; prints nothing, and is never used for `--json`, where the numbers stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def count(number: int) -> str:
    """52002 -> "52,002"."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """(1, "stage") -> "1 stage"; (12, "stage") -> "12 stages"; (7, "entry") -> "7 entries"."""
    if number == 1:
        return f"{number:,} {noun}"
    many = noun.removesuffix("y") + "ies" if noun.endswith("ry") else noun + "s"
    return f"{number:,} {many}"


def duration(seconds: float) -> str:
    """At most two units: "0.3 s", "42 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two_units(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _two_units(whole, _HOUR, "h", _MINUTE, "min")
    return _two_units(whole, _DAY, "d", _HOUR, "h")


def _two_units(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    major, rest = divmod(seconds, large)
    minor = rest // small
    return f"{major:,} {large_name} {minor} {small_name}" if minor else f"{major:,} {large_name}"


def size(number_bytes: float) -> str:
    """Binary units: "512 B", "1.5 KiB", "26.2 GiB"."""
    if number_bytes < 1024:
        return f"{number_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number_bytes /= 1024
        if number_bytes < 1024:
            return f"{number_bytes:.1f} {unit}"
    return f"{number_bytes / 1024:,.1f} PiB"


def large(number: float, unit: str = "") -> str:
    """Short scale of three digits: (9.46e6, "tokens") -> "9.46 M tokens"; (2.1e18, "FLOP") -> "2.10 E FLOP"."""
    for scale, name in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(number) >= scale:
            return f"{number / scale:.3g} {name}{unit and ' ' + unit}"
    return f"{number:,.0f}{unit and ' ' + unit}"


def flops(number: float) -> str:
    """2.1e18 -> "2.1 EFLOP" (a count of operations, not a rate)."""
    return large(number, "FLOP").replace(" FLOP", "FLOP") if abs(number) >= 1e6 else f"{number:,.0f} FLOP"


def rate(tokens_per_second: float) -> str:
    """2700.4 -> "2,700 tok/s"."""
    return f"{tokens_per_second:,.0f} tok/s"


def short_id(identifier: str) -> str:
    """The first 12 characters, enough to distinguish stages and requests of a run."""
    return identifier[:12]


def order(slices: Sequence[int], arrow: str = "→") -> str:
    """(0, 2, 1) -> "0→2→1"; more than 12 slices keep both ends: "0→1→2→…→63"."""
    names = [str(index) for index in slices]
    if len(names) > 12:
        names = [*names[:3], "…" if arrow == "→" else "..", names[-1]]
    return arrow.join(names)


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped, so that no id or path can control the terminal."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names with commas, the first `most` of them: "a, b, c and 7 more"."""
    names = list(names)
    # Blanks at an end are what may tell a name from one that is known.
    shown = ", ".join(printable(name if name == name.strip() else repr(name)) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
