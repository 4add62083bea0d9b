"""Images as records: from Parquet, Hugging Face columns, folders and data URLs; malformed ones are told by row."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_ray.config.schema import Columns, Data, Task
from s3t_ray.data.images.image_transform import read_transform
from s3t_ray.data.readers.inputs import encode, encode_prompt
from s3t_ray.data.readers.read import RejectFile, read_holdout, read_records
from s3t_ray.data.readers.reading import Reading
from s3t_ray.data.record_check import RecordCheck
from s3t_ray.data.records import Record
from s3t_ray.errors import ConfigError, DataError
from tests.images import LABELS, data_url, encoded, picture, png
from tests.tiny import tiny_vit

TASK = Task(kind="image_classification", labels=LABELS)
ROWS = [{"id": f"i{n}", "image": {"bytes": png(n, LABELS[n % 2]), "path": None}, "label": n % 2} for n in range(4)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("vit"), layers=1)


def records(path: Path, **data: object) -> list[Record]:
    return list(read_records(Data(path=str(path), **data), TASK))


def expected() -> list[tuple[str, str, bytes]]:
    return [(f"i{n}", LABELS[n % 2], png(n, LABELS[n % 2])) for n in range(4)]


def told(found: list[Record]) -> list[tuple[str, str, bytes]]:
    contents = [json.loads(record.content) for record in found]
    assert all({*content} == {"image", "label"} for content in contents)
    return [(r.id, c["label"], base64.b64decode(c["image"])) for r, c in zip(found, contents, strict=True)]


def test_a_record_holds_the_files_own_bytes_whatever_they_came_in(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "struct.parquet")
    plain = [{**row, "image": row["image"]["bytes"]} for row in ROWS]  # type: ignore[index]
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "bytes.parquet")
    urls = [{**row, "image": data_url(row["image"])} for row in plain]
    (tmp_path / "urls.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in urls))
    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.ClassLabel(names=[*LABELS])}
    )
    datasets.Dataset.from_list(ROWS, features=features).save_to_disk(str(tmp_path / "saved"))
    for name in ("struct.parquet", "bytes.parquet", "urls.jsonl", "saved"):
        assert told(records(tmp_path / name)) == expected(), name


def test_columns_of_other_names_and_ids_from_the_content(tmp_path: Path) -> None:
    rows = [{"img": row["image"], "fine_label": row["label"]} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "cifar.parquet")
    found = records(tmp_path / "cifar.parquet", columns=Columns(image="img", label="fine_label"))
    assert [each[1:] for each in told(found)] == [each[1:] for each in expected()]
    assert len({record.id for record in found}) == 4 and all(record.id.startswith("c-") for record in found)


def test_a_folder_has_a_class_a_folder(tmp_path: Path) -> None:
    for number in range(4):
        file = tmp_path / LABELS[number % 2] / "deep" / f"test_{number}.PNG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    (tmp_path / "notes.txt").write_text("about the pictures")
    reading = Reading()
    found = list(read_records(Data(path=str(tmp_path)), TASK, reading=reading))
    assert [(r.id, json.loads(r.content)["label"]) for r in found] == [
        ("square/deep/test_0.PNG", "square"),
        ("square/deep/test_2.PNG", "square"),
        ("stripes/deep/test_1.PNG", "stripes"),
        ("stripes/deep/test_3.PNG", "stripes"),
    ]
    # What a run keeps of its input names no image: a file's name is erased with its record.
    assert ".PNG" not in json.dumps([reading.files, reading.skipped])


def test_a_folder_of_splits(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "val")):
        file = tmp_path / split / LABELS[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(number), "JPEG"))
    assert [record.id for record in records(tmp_path)] == ["square/0.jpg", "stripes/1.jpg"]
    held = Data(path=str(tmp_path), holdout_split="val")
    assert [record.id for record in read_holdout(held, TASK)] == ["val:square/2.jpg"]
    with pytest.raises(DataError, match="the splits train, val"):
        records(tmp_path, split="test")


def test_a_malformed_image_is_told_by_file_row_and_id(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": "cut", "image": {"bytes": png(9)[:60], "path": None}, "label": 0}]
    rows.append({"id": "path", "image": {"bytes": None, "path": "secret.png"}, "label": 0})
    rows.append({"id": "class", "image": ROWS[0]["image"], "label": 7})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    with pytest.raises(DataError) as caught:
        records(tmp_path / "data.parquet")
    lines = caught.value.problem.splitlines()[1:]
    assert ["data.parquet:5: the image cannot be decoded" in lines[0], "(id 'cut')" in lines[0]] == [True, True]
    assert "data.parquet:6: field 'image' holds only the path of a file (id 'path')" in lines[1]
    assert "data.parquet:7: label is a number outside 0..1" in lines[2] and "secret" not in caught.value.problem
    with RejectFile(tmp_path / "rejects.jsonl") as rejects:
        data = Data(path=str(tmp_path / "data.parquet"), on_malformed="set_aside")
        assert len(list(read_records(data, TASK, rejects))) == 4
    row = json.loads((tmp_path / "rejects.jsonl").read_text().splitlines()[0])["row"]
    assert row["id"] == "cut" and base64.b64decode(row["image"]["bytes"]) == png(9)[:60]


def test_a_file_in_no_class_and_one_of_another_format_are_malformed(tmp_path: Path) -> None:
    (tmp_path / "square").mkdir()
    (tmp_path / "square" / "a.png").write_bytes(png(1))
    (tmp_path / "square" / "b.gif").write_bytes(encoded(picture(1), "GIF"))
    (tmp_path / "stray.png").write_bytes(png(2))
    (tmp_path / "square" / "link.png").symlink_to(tmp_path / "stray.png")
    with pytest.raises(DataError) as caught:
        records(tmp_path)
    assert "2 malformed rows" in caught.value.problem
    assert "b.gif:1: the image is not one of" in caught.value.problem
    assert "stray.png:1: the image is not in the folder of a class (id 'stray.png')" in caught.value.problem


def test_a_file_that_cannot_be_read_refuses_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "square").mkdir()
    (tmp_path / "square" / "a.png").write_bytes(png(1))

    def denied(self: Path, mode: str = "r") -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"a\.png cannot be read: Permission denied"):
        records(tmp_path)


def test_text_is_no_image_task_and_back() -> None:
    with pytest.raises(ValueError, match="which uses no text"):
        Task(kind="image_classification", labels=LABELS, text="{sentence}")
    with pytest.raises(ValueError, match="which uses no images"):
        Task(kind="classification", labels=LABELS, pixels={"size": 8})


def test_what_the_model_reads_is_what_its_own_processor_makes(base: Path) -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = ViTImageProcessorPil.from_pretrained(base)(picture(5), return_tensors="np").pixel_values[0]
    ours = read_transform(base, TASK).pixels(png(5))
    assert ours.shape == (3, 16, 16) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_settings_of_the_run_go_before_those_of_the_base(base: Path, tmp_path: Path) -> None:
    wide = picture(3).resize((40, 20))
    changed = Task(
        kind="image_classification",
        labels=LABELS,
        pixels={"resize": "crop", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    )
    middle = wide.crop((10, 0, 30, 20)).resize((16, 16), 2)
    pixels = read_transform(base, changed).pixels(encoded(wide))
    np.testing.assert_allclose(pixels.transpose(1, 2, 0) * 255, np.asarray(middle), atol=1e-3)
    thin = picture(3).resize((1, 4000))  # its long side is never blown up
    assert read_transform(base, changed).pixels(encoded(thin)).shape == (3, 16, 16)
    with pytest.raises(ConfigError, match="images of 32 x 32 pixels do not fit"):
        read_transform(base, TASK.model_copy(update={"pixels": TASK.pixels.model_copy(update={"size": 32})}))
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"task\.pixels leaves out size, resize, resample, mean, std"):
        read_transform(tmp_path, TASK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"do_resize": False}, "do_resize is False"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"resample": 5}, "resample 5"),
        ({"size": {"height": 16, "width": 8}}, "not one number of pixels"),
        ({"size": "16"}, "not one number of pixels"),
        ({"image_std": [0.5, 0.5, 0.0]}, "is not valid"),
        ({"image_mean": [0.5]}, "is not valid"),
    ],
)
def test_settings_of_a_processor_that_are_refused(
    base: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    told = json.loads((base / "preprocessor_config.json").read_text())
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**told, **changes}))
    with pytest.raises(ConfigError, match=reason):
        read_transform(tmp_path, TASK)


def test_records_and_prompts_for_the_model(base: Path, tmp_path: Path) -> None:
    transform = read_transform(base, TASK)
    content = json.dumps({"image": base64.b64encode(png(1)).decode(), "label": "stripes"})
    example = encode(content, transform, TASK)  # type: ignore[arg-type]
    assert len(example.input_ids) == transform.tokens == 5 and example.label == 1 and example.learned == 1
    assert RecordCheck(transform, TASK)(content) == (content, True)  # type: ignore[arg-type]
    asked = encode_prompt(data_url(png(1)), transform, TASK)  # type: ignore[arg-type]
    assert asked.label is None and asked.picture == example.picture
    for prompt, reason in (
        ("what is this?", "not a data URL"),
        ("https://example.org/cat.png", "not a data URL"),
        ("data:text/html;base64,AAAA", "not a data URL"),
        (data_url(png(1))[:-7], "base64 is invalid"),
        (data_url(b"GIF89a"), "not one of"),
        (data_url(png(1)[:80]), "truncated or damaged"),
    ):
        with pytest.raises(DataError, match=reason):
            encode_prompt(prompt, transform, TASK)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not chat messages"):
        encode_prompt([{"role": "user", "content": "x"}], transform, TASK)  # type: ignore[arg-type]
