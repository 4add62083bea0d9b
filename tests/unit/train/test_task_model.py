"""Every task in the registry has both its classes, and the config accepts exactly these."""

from __future__ import annotations

from typing import get_args

import pytest

from s3t_ray.config.families import FAMILIES
from s3t_ray.config.schema import Task
from s3t_ray.config.tasks import TASKS, MetricName, TaskName
from s3t_ray.data.task_records import task_records
from s3t_ray.ensemble.task_metrics import TASK_METRICS
from s3t_ray.train.task_models.task_model import JudgingModel, task_model


def a_task(name: TaskName) -> Task:
    return Task(kind=name, labels=("a", "b") if TASKS[name].head == "classes" else ())


def test_the_config_takes_the_tasks_of_the_registry() -> None:
    assert set(get_args(TaskName)) == set(TASKS)
    assert set(get_args(MetricName)) == set(TASK_METRICS)


@pytest.mark.parametrize("name", TASKS)
def test_both_halves_of_a_task_agree_with_its_entry(name: TaskName) -> None:
    task, kind = a_task(name), TASKS[name]
    assert task_records(task).task == task
    model = task_model(task)
    assert isinstance(model, JudgingModel) == (kind.head != "none") == (not model.generates)
    assert set(kind.usual_metrics) <= set(kind.metrics)
    assert bool(kind.usual_metrics) == isinstance(model, JudgingModel)
    assert [family for family in FAMILIES.values() if family.architecture == kind.architecture]
