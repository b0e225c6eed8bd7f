"""What kind of machine this is."""

from pathlib import Path

from lorry_components.hardware_id import describe_machine


def test_processors_and_gpus(tmp_path: Path) -> None:
    assert describe_machine(tmp_path).endswith(" x processor")
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags : a b\n", "utf-8"
    )
    assert describe_machine(tmp_path).endswith(" x Some CPU @ 2 GHz")
    for place, model in (("01", "H100"), ("02", "H100"), ("03", "A10")):
        folder = tmp_path / "driver/nvidia/gpus" / place
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA {model}\nIRQ: 1\n", "utf-8")
    assert describe_machine(tmp_path).endswith(" x Some CPU @ 2 GHz, 1 x NVIDIA A10, 2 x NVIDIA H100")


def test_this_machine_is_the_same_each_time() -> None:
    assert describe_machine() == describe_machine()
    assert int(describe_machine().split(" x ")[0]) >= 1
