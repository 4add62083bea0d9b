"""GPUs by name, whether a config fits them, and that what is proposed does."""

from __future__ import annotations

import pytest

from s3t_ray.config.load import load_config
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.gpu_fit import GpuFit, gpu_fit
from s3t_ray.plan.gpu_kinds import GPU_KINDS, parse_gpus
from s3t_ray.plan.work import describe_work


def fit_of(config: Config, gpus: str) -> GpuFit:
    assert config.model.shape is not None
    work = describe_work(config, 52_002, 182.0, 0.83, config.model.shape)
    return gpu_fit(config, work, parse_gpus(gpus), 1e18)


@pytest.mark.parametrize(
    ("text", "name", "count", "gib"),
    [
        ("8xH100", "8 x H100", 8, 79),
        ("h200", "1 x H200", 1, 139),
        ("2xA100-40GB", "2 x A100-40GB", 2, 39),
        ("8x80GiB", "8 x 80 GiB", 8, 80),
        ("24gib", "1 x 24 GiB", 1, 24),
    ],
)
def test_gpus_by_kind_and_by_memory(text: str, name: str, count: int, gib: int) -> None:
    gpus = parse_gpus(text)
    assert (gpus.name, gpus.count, gpus.memory_bytes) == (name, count, gib * 2**30)
    assert (gpus.flops_per_second is None) == ("GiB" in name)


@pytest.mark.parametrize("text", ["", "8", "8x", "0xH100", "8xH1000", "8x0GiB", "-1xH100", "8xGiB", "8 x H100 x 2"])
def test_what_is_no_gpu_is_refused_with_the_kinds_there_are(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_gpus(text)
    assert "8x80GiB" in refused.value.fix and all(kind in refused.value.fix for kind in GPU_KINDS)


@pytest.mark.parametrize("ready", ["llama-2-7b", "llama-2-13b", "llama-3-8b", "demo"])
@pytest.mark.parametrize("gpus", ["8xH100", "H200", "4x24GiB", "2xL40S", "16xB200"])
def test_a_config_with_the_proposed_settings_fits(ready: str, gpus: str) -> None:
    fit = fit_of(load_config(ready), gpus)
    assert fit.proposal is not None
    changed = load_config(ready, list(fit.settings))
    again = fit_of(changed, gpus)
    assert again.fits, again.obstacles
    assert again.settings == ()
    assert again.present_bytes == fit.proposal.memory.total <= again.gpus.memory_bytes


def test_obstacles_are_named_with_their_values() -> None:
    config = load_config("llama-2-13b", ["engine.ranks=2", "engine.zero_stage=2", "workers.gpus_per_rank=1"])
    (alone,) = [text for text in fit_of(config, "H100").obstacles if "worker group" in text]
    assert alone == "a worker group needs 2 GPUs, and there are 1"
    assert any("a GPU has 24" in text for text in fit_of(config, "2x24GiB").obstacles)
    assert fit_of(load_config("demo"), "H100").obstacles == ("workers.gpus_per_rank is 0: it trains on CPUs",)


def test_nothing_is_proposed_where_nothing_fits() -> None:
    fit = fit_of(load_config("llama-2-13b"), "2GiB")
    assert fit.proposal is None and fit.settings == () and not fit.fits


def test_the_least_time_is_all_flops_at_the_best_rate() -> None:
    assert fit_of(load_config("llama-2-7b"), "8xH100").least_seconds == pytest.approx(1e18 / (8 * 989e12))
    assert fit_of(load_config("llama-2-7b"), "8x80GiB").least_seconds is None
