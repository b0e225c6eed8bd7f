"""Images are checked and kept with the prepared data; a change of one is a change of the data."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lorry_components.steps.prepare_data.step import digest_source, load_part, prepare_data
from lorry_components.task_types.diffusion.image_arrays import decode_image
from lorry_components.tasks.definition import find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
PARTS = ("train", "validation", "test")


def add_row(folder: Path, name: object, text: str = "a photo of sks dog") -> None:
    with (folder / "metadata.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"file_name": name, "text": text}) + "\n")


def list_faults(spec: TaskSpec, target: Path) -> list[str]:
    with pytest.raises(InvalidDataError) as caught:
        prepare_data(resolve_task(spec), target)
    return [str(fault) for fault in caught.value.faults]


def test_later_steps_need_no_other_file(make_image_spec: MakeSpec, photographs: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in photographs.iterdir()}
    card = prepare_data(resolve_task(make_image_spec()), tmp_path / "data")
    shutil.rmtree(photographs)
    parts = {part: load_part(tmp_path / "data", part) for part in PARTS}
    # All nine are there once, though eight have one prompt.
    assert sum(map(len, parts.values())) == 9
    assert all(parts.values())
    examples = [example for examples in parts.values() for example in examples]
    assert {str(example.label) for example in examples} == before.keys() - {"metadata.jsonl"}
    for example in examples:
        assert base64.b64decode(example.row["image"]) == before[str(example.label)]
        assert decode_image(example.row["image"], 32).shape == (32, 32, 3)
    assert card.labels is None
    # Words of prompts, not of images.
    assert card.splits["train"].words.max <= 8


def test_the_order_of_rows_decides_nothing(
    make_image_spec: MakeSpec, photographs: Path, tmp_path: Path
) -> None:
    first = prepare_data(resolve_task(make_image_spec()), tmp_path / "first")
    table = photographs / "metadata.jsonl"
    table.write_text("\n".join(reversed(table.read_text("utf-8").splitlines())) + "\n", "utf-8")
    assert prepare_data(resolve_task(make_image_spec()), tmp_path / "second").data_digest == first.data_digest


def test_a_changed_image_is_changed_data(
    make_image_spec: MakeSpec, photographs: Path, tmp_path: Path
) -> None:
    spec = make_image_spec()
    first = prepare_data(resolve_task(spec), tmp_path / "first")
    assert first.source_digest == digest_source(spec.data, find_task_type(spec))
    (photographs / "note.txt").write_text("unread", "utf-8")
    assert digest_source(spec.data, find_task_type(spec)) == first.source_digest
    Image.new("RGB", (64, 64), (1, 2, 3)).save(photographs / "0.png")
    second = prepare_data(resolve_task(spec), tmp_path / "second")
    assert second.data_digest != first.data_digest
    assert second.source_digest != first.source_digest


def test_one_image_under_two_names_is_not_held_out_from_itself(
    make_image_spec: MakeSpec, photographs: Path, tmp_path: Path
) -> None:
    for number in range(9):
        suffix = "jpg" if number % 2 else "png"
        shutil.copyfile(photographs / f"{number}.{suffix}", photographs / f"again-{number}.{suffix}")
        add_row(photographs, f"again-{number}.{suffix}", "another prompt")
    prepare_data(resolve_task(make_image_spec()), tmp_path / "data")
    sides = [{example.row["image"] for example in load_part(tmp_path / "data", part)} for part in PARTS]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 9


def test_all_faults_are_told_at_once(make_image_spec: MakeSpec, photographs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (64, 64)).save(outside)
    (photographs / "link.png").symlink_to(outside)
    Image.new("RGB", (64, 40)).save(photographs / "small.png")
    (photographs / "text.png").write_text("no image", "utf-8")
    content = (photographs / "0.png").read_bytes()
    (photographs / "short.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (64, 64)).save(photographs / "picture.gif")
    Image.new("RGB", (64, 64)).save(photographs / "hidden.png", format="GIF")
    names = ["nosuch.png", "../outside.png", str(outside), "link.png", "small.png", "text.png", "short.png"]
    for name in [*names, "picture.gif", "hidden.png", 7, "a" * 300 + ".png"]:
        add_row(photographs, name)
    told = list_faults(make_image_spec(), tmp_path / "data")
    wanted = [
        "there is no file 'nosuch.png'",
        "'../outside.png' is not the name of a file in the folder",
        "is not the name of a file in the folder of the table",
        "'link.png' is a link that leads out of the folder",
        "'small.png' is 64x40 pixels; each side needs 64",
        "'text.png' is not an image",
        "'short.png' is damaged",
        "'picture.gif' does not end in .png",
        "'hidden.png' is not an image in the format PNG, JPEG, WEBP",
        "is not the name of an image file",
        "File name too long",
    ]
    assert len(told) == len(wanted)
    for fault, line, what in zip(told, range(10, 21), wanted, strict=True):
        assert fault.startswith(f"metadata.jsonl line {line}: column 'file_name'")
        assert what in fault
    assert not (tmp_path / "data").exists()


def test_a_photograph_is_turned_and_cut_to_its_middle(tmp_path: Path) -> None:
    image = Image.new("RGB", (120, 60), (255, 0, 0))
    image.paste((0, 0, 255), (40, 0, 80, 60))
    exif = Image.Exif()
    # Turned by a quarter, as cameras note it.
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    text = base64.b64encode((tmp_path / "turned.png").read_bytes()).decode()
    assert decode_image(text).shape == (120, 60, 3)
    pixels = decode_image(text, 30)
    assert pixels.shape == (30, 30, 3)
    assert pixels[15, 15].tolist() == [0, 0, 255]
    assert pixels[1, 15].tolist() == [255, 0, 0]
