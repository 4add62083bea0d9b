"""`s3t plan`: what a config means before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3t_ray.cli.options import ConfigArgument, JsonOption, SetOption
from s3t_ray.errors import ConfigError

if TYPE_CHECKING:
    from s3t_ray.cli.plan_report import PlanData
    from s3t_ray.config.schema import Config, ModelShape
    from s3t_ray.data.chats.token_ids import Tokenizer


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:\n"
        "$ s3t plan my.yaml\n"
        "$ s3t plan llama-2-13b --records 52002 --tokens-per-record 182\n"
        "$ s3t plan my.yaml --gpu 8xH100\n"
        "$ s3t plan my.yaml --set budget=20 --set order.kind=chains --json"
    )(plan)


def plan(
    config: ConfigArgument,
    records: Annotated[
        int | None, typer.Option("--records", min=1, help="Number of records, instead of counting them.")
    ] = None,
    tokens_per_record: Annotated[
        float | None,
        typer.Option("--tokens-per-record", min=1, help="Mean tokens per record, instead of counting them."),
    ] = None,
    labelled_share: Annotated[
        float | None,
        typer.Option("--labelled-share", min=0, max=1, help="Share of tokens that carry loss, from 0 to 1."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="GPUS",
            help="Show whether the config fits these GPUs, such as 8xH100 or 4x24GiB, and what to set.",
        ),
    ] = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a config costs: sequences, stages, compute, memory, storage, and how many deletions it survives.

    Trains nothing and downloads no model. If the base model is on this
    machine, it is checked as by `s3t train`. Reads the data, unless you give
    both --records and --tokens-per-record. Tokens are counted with the base
    model's tokenizer if it is on this machine, and estimated otherwise.
    """
    from s3t_ray.cli.plan_report import plan_report
    from s3t_ray.cli.show.output import print_json, stdout_console
    from s3t_ray.cli.show.show_plan import plan_view
    from s3t_ray.cli.show.show_status import glyphs
    from s3t_ray.config.load import load_config
    from s3t_ray.plan.gpu_fit import gpu_fit
    from s3t_ray.plan.gpu_kinds import parse_gpus
    from s3t_ray.plan.overview import plan_overview

    gpus = None if gpu is None else parse_gpus(gpu)
    resolved = load_config(config, overrides or ())
    tokenizer = checked_tokenizer(resolved)
    shape = model_shape(resolved)
    data, sizes = data_size(resolved, records, tokens_per_record, labelled_share, tokenizer)
    overview = plan_overview(resolved, data.records, data.tokens_per_record, data.labelled_share, shape, sizes)
    fit = None if gpus is None else gpu_fit(resolved, overview.work, gpus, overview.cost.flops)
    report = plan_report(overview, data, fit)
    if json:
        print_json(report)
    else:
        console = stdout_console()
        console.print(plan_view(report, glyphs(console)))


def checked_tokenizer(config: Config) -> Tokenizer | None:
    """The tokenizer of the base model, checked as `s3t train` checks it; None: its weights are not on this machine."""
    from pathlib import Path

    from s3t_ray.config.base_model import find_base

    folder = Path(config.model.path).expanduser()
    if not any(next(folder.glob(kind), None) for kind in ("*.safetensors*", "*.bin", "adapter_config.json")):
        return None  # only sizes, or nothing
    found = find_base(config.model)
    from s3t_ray.train.loading.check_base import check_base_model

    tokenizer: Tokenizer = check_base_model(config, found)
    return tokenizer


def model_shape(config: Config) -> ModelShape:
    """Sizes of the base, from the config or the model's folder. Raises ConfigError: neither has them."""
    from pathlib import Path

    from s3t_ray.config.base_model import read_shape

    if config.model.shape is not None:
        return config.model.shape
    folder = Path(config.model.path).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.shape is not set, and model.path = {config.model.path} is not a model folder on this machine",
            "set model.shape (its sizes are in the model's config.json), or download the model first",
        )
    return read_shape(folder)


def data_size(
    config: Config,
    records: int | None,
    tokens_per_record: float | None,
    labelled_share: float | None,
    tokenizer: Tokenizer | None = None,
) -> tuple[PlanData, list[list[int]] | None]:
    """The size of the data, from the options or else from the data itself.

    Also the training records by shard and slice, if they were counted.
    """
    from s3t_ray.cli.plan_report import PlanData, balance_report

    if records is not None and tokens_per_record is not None:
        return PlanData(
            records=records,
            held_out_records=round(records * config.data.holdout),
            set_aside_rows=0,
            tokens_per_record=tokens_per_record,
            labelled_share=1.0 if labelled_share is None else labelled_share,
            records_from="option",
            tokens_from="option",
            labelled_share_from="assumed" if labelled_share is None else "option",
            sampled_records=0,
            teaching_nothing=0,
            balance=None,
            notes=(),
        ), None
    from s3t_ray.cli.measure_data import measure
    from s3t_ray.cli.show.output import working

    with working(f"reading {config.data.path}"):
        size = measure(config, tokenizer)
    found = PlanData(
        records=size.records + size.held_out if records is None else records,
        held_out_records=size.held_out if records is None else round(records * config.data.holdout),
        set_aside_rows=size.set_aside,
        tokens_per_record=size.tokens_per_record if tokens_per_record is None else tokens_per_record,
        labelled_share=size.labelled_share if labelled_share is None else labelled_share,
        records_from="data" if records is None else "option",
        tokens_from=size.counted_by if tokens_per_record is None else "option",
        labelled_share_from=size.counted_by if labelled_share is None else "option",
        sampled_records=size.sampled,
        teaching_nothing=size.teaching_nothing,
        balance=None if records is not None else balance_report(size.balance),
        notes=size.notes,
    )
    return found, None if records is not None else size.sizes
