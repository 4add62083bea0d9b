"""Runs unmodified client libraries and lm-eval against a real service.

    python -m venv CLIENTS
    CLIENTS/bin/pip install openai langchain-openai litellm 'lm_eval[api]' datasets transformers
    python benchmarks/clients.py --python CLIENTS/bin/python

Trains a tiny run and serves it with `s3t serve`; the clients run in their own environment. Makes every call of
`benchlib/client_calls.py`. Then lm-eval scores a multiple-choice task (loglikelihood) and a generation task
(generate_until) from local files. Its log-likelihoods are compared with those computed offline from the live stages.
Writes benchmarks/results/clients.json and prints it. The exit code is 1 if something was refused or differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchlib.http_calls import CutOff, ask
from benchlib.live_service import UP_SECONDS, LiveService
from benchlib.tiny_run import tiny_run
from rich.console import Console

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.ensemble.ensemble import Ensemble
from s3t_ray.ensemble.in_process import serving_chains
from s3t_ray.run.run import Run
from s3t_ray.sweep.result_file import save
from s3t_ray.train.loading.base_reader import base_reader

RESULTS = Path(__file__).with_name("results")
CALLS = Path(__file__).parent / "benchlib" / "client_calls.py"
LIBRARIES = ("openai", "langchain-openai", "litellm", "lm_eval")
CHOICES = ("one", "two")
TEMPLATE = (
    "{% for message in messages %}### {{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant: {% endif %}"
)
MOST_DIFFERENCE = 1e-3
"""In nats, for a complete continuation."""


@dataclass(frozen=True)
class Clients:
    versions: dict[str, str]
    calls: dict[str, str | None]  # the error, or null
    lm_eval_scores: dict[str, dict[str, float]]  # by task
    loglikelihoods: int
    largest_difference: float  # nats, between lm-eval's and those computed offline


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the environment with the clients")
    told = parser.parse_args()
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        config = _config(folder)
        (folder / "config.yaml").write_text(dump_config(config))
        subprocess.run([sys.executable, "-m", "s3t_ray.cli.main", "train", str(folder / "config.yaml")], check=True)
        with LiveService(config.storage.uri, folder / "log", {}) as service:
            asyncio.run(_up(service))
            calls = _library_calls(told.python, service)
            scores, samples = _lm_eval(told.python, service, folder, Path(config.model.path))
        made = Clients(_versions(told.python), calls, scores, len(samples), _largest_difference(config, samples))
    Console().print_json(json.dumps(asdict(made)))
    save(RESULTS / "clients.json", made)
    return int(any(made.calls.values()) or not made.loglikelihoods or made.largest_difference > MOST_DIFFERENCE)


def _config(folder: Path) -> Config:
    """Config of a run that answers multi-turn conversations: its base has a chat template."""
    config = tiny_run(folder, "clients", shards=2, slices=2, budget=1, records_per_slice=12)
    (Path(config.model.path) / "chat_template.jinja").write_text(TEMPLATE)
    told = config.model_dump(mode="json", exclude_unset=True)
    return Config.model_validate({**told, "task": {"prompt": "chat_template"}})


async def _up(service: LiveService) -> None:
    until = time.monotonic() + UP_SECONDS
    while time.monotonic() < until:
        service.check()
        try:
            if (await ask(service.port, "GET", "/v1/models", service.token)).status == 200:
                return
        except CutOff:
            pass
        await asyncio.sleep(1.0)
    raise RuntimeError("the service is not up")


def _library_calls(python: Path, service: LiveService) -> dict[str, str | None]:
    done = subprocess.run(
        [python, CALLS, f"http://127.0.0.1:{service.port}/v1", "clients"],
        env={**os.environ, "S3T_TOKEN": service.token},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"call"')]
    return {line["call"]: line["error"] for line in lines}


def _lm_eval(
    python: Path, service: LiveService, folder: Path, base: Path
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Scores by task, and lm-eval's record of each multiple-choice question."""
    tasks, out = folder / "tasks", folder / "out"
    _write_tasks(tasks)
    settings = f"model=clients,base_url=http://127.0.0.1:{service.port}/v1/completions,num_concurrent=2,max_length=500"
    subprocess.run(
        [
            *(python, "-m", "lm_eval", "--model", "local-completions", "--tasks", "choice,generation"),
            *("--model_args", f"{settings},tokenizer_backend=huggingface,tokenizer={base}"),
            *("--include_path", str(tasks), "--output_path", str(out), "--log_samples"),
        ],
        env={**os.environ, "OPENAI_API_KEY": service.token},
        check=True,
    )
    (results,) = out.rglob("results_*.json")
    (noted,) = out.rglob("samples_choice_*.jsonl")
    found = json.loads(results.read_text())["results"]
    scores = {
        task: {name: value for name, value in told.items() if isinstance(value, float)} for task, told in found.items()
    }
    return scores, [json.loads(line) for line in noted.read_text().splitlines()]


def _write_tasks(folder: Path) -> None:
    folder.mkdir()
    questions = [{"q": f"Say number {number}.", "label": number % 2} for number in range(6)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "test_split": "test",
        "doc_to_text": "Question: {{q}}\nAnswer:",
        "doc_to_target": "{{label}}",
    }
    choice = {"output_type": "multiple_choice", "doc_to_choice": list(CHOICES), "metric_list": [{"metric": "acc"}]}
    generation = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }
    for name, own in (("choice", choice), ("generation", generation)):
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **own}))  # JSON is YAML


def _largest_difference(config: Config, samples: list[dict[str, Any]]) -> float:
    """Between lm-eval's log-likelihoods and those computed here from the live stages, without a service."""
    with Run.open(config.storage.uri) as run:
        ensemble = Ensemble(run.config, run.base, run.store, threads=1)
        ensemble.set_live(1, serving_chains(run))
        tokenizer: Any = base_reader(str(run.base), run.config.task)
        differences = []
        for sample in samples:
            for (context, continuation), response in zip(
                (call.values() for call in sample["arguments"].values()), sample["resps"], strict=True
            ):
                read = tokenizer(context, add_special_tokens=False).input_ids
                whole = tokenizer(context + continuation, add_special_tokens=False).input_ids
                logs = torch.log_softmax(ensemble.logits(whole).float(), dim=-1)
                here = sum(float(logs[at - 1, whole[at]]) for at in range(len(read), len(whole)))
                differences.append(abs(here - float(response[0][0])))
    return max(differences, default=math.inf)


def _versions(python: Path) -> dict[str, str]:
    asked = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", asked, *LIBRARIES], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
