"""The demo's data: what becomes of the published tables, and when they are fetched."""

import importlib.util
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import InvalidDataError

SCRIPT = Path(__file__).parents[3] / "infra" / "demo" / "fetch_data.py"
TABLE = "1\t2.5\tLovely \u2028 thing.\r\n2\t-0.5\tWorn out.\r\n3\t0.45\tIt is a box.\r\n"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("fetch_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pack(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture
def count_downloads(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Put a small archive of the published form in the index's place; return how often it was read."""
    tables = {f"hutto_ICWSM_2014/{stem}_GroundTruth.txt": TABLE.encode() for stem in script.DOMAINS.values()}
    inner = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(pack({inner: pack(tables)}))
    downloads: list[Path] = []

    def download(folder: Path) -> Path:
        downloads.append(folder)
        return archive

    monkeypatch.setattr(script, "_download", download)
    return lambda: len(downloads)


def test_each_domain_becomes_rows_with_a_number_and_a_class(
    script: Any, count_downloads: Callable[[], int], tmp_path: Path
) -> None:
    paths = script.fetch_data(tmp_path / "data")
    assert [path.stem for path in paths] == list(script.DOMAINS)
    for path in paths:
        rows = [json.loads(line) for line in path.read_text("utf-8").rstrip("\n").split("\n")]
        assert rows == [
            {"text": "Lovely \u2028 thing.", "rating": 2.5, "polarity": "positive"},
            {"text": "Worn out.", "rating": -0.5, "polarity": "negative"},
            {"text": "It is a box.", "rating": 0.45, "polarity": "neutral"},
        ]
    script.fetch_data(tmp_path / "data")
    assert count_downloads() == 1


@pytest.mark.parametrize("content", ['{"text": "Lovely.", "rating": 2.5}\n', ""])
def test_a_file_of_an_earlier_version_or_an_empty_one_is_fetched_again(
    script: Any, count_downloads: Callable[[], int], tmp_path: Path, content: str
) -> None:
    (path, *_) = script.fetch_data(tmp_path / "data")
    path.write_text(content, "utf-8")
    script.fetch_data(tmp_path / "data")
    assert count_downloads() == 2
    assert "polarity" in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("rating", "name"),
    [(-4, "negative"), (-0.5, "negative"), (-0.49, "neutral"), (0.49, "neutral"), (0.5, "positive")],
)
def test_a_mean_rating_nearer_to_zero_than_half_a_point_is_neutral(
    script: Any, rating: float, name: str
) -> None:
    assert script.name_polarity(rating) == name


def test_an_archive_that_is_not_the_published_one_is_refused(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], **_: Any) -> Any:
        Path(command[command.index("--dest") + 1], "vaderSentiment-3.3.2.tar.gz").write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(script.subprocess, "run", download)
    with pytest.raises(InvalidDataError, match=r"its digest is sha256:.*, expected sha256:5d7c06e0"):
        script.fetch_data(tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
