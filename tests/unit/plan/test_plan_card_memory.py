"""Whether a stage fits a GPU, and what is told to whoever asks too much of one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import s3t_ray
from s3t_ray.config.load import load_config
from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.card_memory import GIB, TOLERANCE, Card, check_card
from s3t_ray.plan.memory import engine_setting, rank_memory
from s3t_ray.plan.work import describe_work

H100 = Card("NVIDIA H100 80GB HBM3", 81559 << 20)
L40S = Card("NVIDIA L40S", 46068 << 20)
A100_40 = Card("NVIDIA A100-SXM4-40GB", 40960 << 20)


def ready(name: str, *overrides: str) -> tuple[Config, ModelShape]:
    config = load_config(Path(s3t_ray.__file__).parent / "configs" / f"{name}.yaml", overrides)
    assert config.model.shape is not None
    return config, config.model.shape


def test_the_ready_13b_fits_80_gb_and_is_refused_on_40() -> None:
    config, shape = ready("llama-2-13b")
    assert check_card(config, shape, H100) is None
    with pytest.raises(ConfigError, match=r"needs 50\.\d GiB \(base 24\.2, .* A100-SXM4-40GB has 40\.0") as caught:
        check_card(config, shape, A100_40)
    assert "engine.gradient_checkpointing: true (28." in caught.value.fix


@pytest.mark.parametrize("card", [L40S, A100_40])
def test_every_remedy_fits_when_it_is_followed(card: Card) -> None:
    config, shape = ready("llama-2-13b")
    work = describe_work(config, 1, config.task.max_tokens, 1.0, shape)
    small = replace(card, memory_bytes=int(rank_memory(work, engine_setting(config)).total / (1.2 + TOLERANCE)))
    with pytest.raises(ConfigError) as caught:
        check_card(config, shape, small)
    remedies = caught.value.fix.removeprefix("one of these fits: ").split("; ")
    assert len(remedies) >= 3
    for remedy in remedies:
        found = re.fullmatch(r"(.+) \((\d+\.\d) GiB\)", remedy)
        assert found is not None, remedy
        changes = [part.replace(": ", "=") for part in found.group(1).split(" with ")]
        changed, _ = ready("llama-2-13b", *changes)
        assert check_card(changed, shape, small) is None, remedy
        memory = rank_memory(describe_work(changed, 1, changed.task.max_tokens, 1.0, shape), engine_setting(changed))
        assert memory.total / GIB == pytest.approx(float(found.group(2)), abs=0.06)


def test_a_tight_fit_is_warned_of() -> None:
    config, shape = ready("llama-2-13b")
    needed = rank_memory(describe_work(config, 1, 512, 1.0, shape), engine_setting(config)).total
    assert check_card(config, shape, Card("a card", needed)) is None
    warning = check_card(config, shape, Card("a card", needed - 1))
    assert warning is not None and "may run out of memory" in warning
    with pytest.raises(ConfigError):
        check_card(config, shape, Card("a card", int(needed / (1 + TOLERANCE)) - 1))


def test_where_nothing_fits_it_says_so() -> None:
    config, shape = ready("llama-2-13b")
    with pytest.raises(ConfigError) as caught:
        check_card(config, shape, Card("a small card", 2 * GIB))
    assert caught.value.fix == "use larger GPUs, or a smaller base model"
