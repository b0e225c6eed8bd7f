import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.reading import Reading, digest_source
from lorry_components.data.sources import s3 as s3_module
from lorry_registry.errors import InvalidDataError, StoreError
from lorry_registry.tasks.input_specs import DataSpec

Read = Callable[..., Reading]
Fail = Callable[..., InvalidDataError]


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text, "label": "x"}) + "\n" for text in texts).encode()


def test_one_object(read: Read, s3: Any) -> None:
    s3.objects["reviews/a.jsonl.gz"] = gzip.compress(lines("a", "b"))
    s3.objects["reviews/a.jsonl.gz.bak"] = b"other"
    reading = read("s3://corpora/reviews/a.jsonl.gz")
    assert [example.row["text"] for example in reading.parts["table"]] == ["a", "b"]


@pytest.mark.parametrize("address", ["s3://corpora/reviews", "s3://corpora/reviews/"])
def test_a_prefix(read: Read, s3: Any, address: str) -> None:
    for part in ("train", "validation", "test"):
        s3.objects[f"reviews/{part}.jsonl"] = lines(part)
    s3.objects["reviews/SOURCE.md"] = s3.objects["reviews-old/train.csv"] = b"other"
    s3.objects["reviews/old/train.jsonl"] = b"other"
    reading = read(address)
    assert {part: examples[0].row["text"] for part, examples in reading.parts.items()} == {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }
    downloads = {request for request in s3.requests if request.startswith("GET corpora/reviews")}
    assert len(downloads) == 3, "only what is read is downloaded"


def test_a_whole_bucket(read: Read, s3: Any) -> None:
    s3.objects["a.csv"] = b"text,label\na,x\n"
    assert len(read("s3://corpora").parts["table"]) == 1


def test_faults_are_those_of_files(fail: Fail, s3: Any) -> None:
    s3.objects["reviews/a.jsonl"] = lines("a", "")
    assert "a.jsonl line 2: column 'text' is empty" in str(fail("s3://corpora/reviews/a.jsonl"))


def test_nothing_there(fail: Fail, s3: Any) -> None:
    assert "S3 refuses to give it: 404" in str(fail("s3://corpora/a.jsonl"))
    assert "there is no file to read at this address; there is none" in str(fail("s3://corpora/reviews"))
    s3.objects["reviews/notes.md"] = b"x"
    assert "there is notes.md" in str(fail("s3://corpora/reviews"))
    message = str(fail("s3://elsewhere/reviews"))
    assert "NoSuchBucket" in message
    assert "AWS_ENDPOINT_URL" in message
    assert "names no bucket" in str(fail("s3:///reviews"))
    assert "S3 cannot be asked" in str(fail("s3://not a bucket/reviews"))


def test_nobody_listens(fail: Fail, monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "S3 cannot be asked: Could not connect" in str(fail("s3://corpora/reviews"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    assert "S3 cannot be asked" in str(fail("s3://corpora/reviews"))


def test_names_that_would_leave_the_folder(fail: Fail, s3: Any) -> None:
    for name in ("..\\a.jsonl", ".hidden.jsonl", "a\tb.jsonl"):
        s3.objects[f"reviews/{name}"] = lines("a")
    assert "there is no file to read at this address" in str(fail("s3://corpora/reviews"))


def test_a_key_that_ends_in_dots_stays_inside(read: Read, s3: Any) -> None:
    s3.objects["reviews/../../a.jsonl"] = lines("a")
    assert len(read("s3://corpora/reviews/../../a.jsonl").parts["table"]) == 1


class Huge(bytes):
    """Bytes that say they are three billion."""

    def __len__(self) -> int:
        return 3_000_000_000


def test_bounds(fail: Fail, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.objects["a.jsonl"] = Huge(lines("a"))
    assert "a.jsonl: is 2.8 GiB large; a file may have 1 GiB" in str(fail("s3://corpora/a.jsonl"))
    monkeypatch.setattr(s3_module, "MAX_OBJECTS", 3)
    s3.objects.update({f"many/{number}.txt": b"" for number in range(5)})
    assert "holds over 3 objects" in str(fail("s3://corpora/many"))


def test_an_object_that_changes_after_it_was_listed(fail: Fail, s3: Any) -> None:
    s3.objects["reviews/a.jsonl"] = lines("a")
    s3.change_after_listing = {"reviews/a.jsonl": lines("a", "b")}
    assert "PreconditionFailed" in str(fail("s3://corpora/reviews"))


def test_a_disk_that_is_full(read: Read, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.objects["a.jsonl"] = lines("a")

    def refuse(self: Path, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match="cannot keep a download: No space left on device"):
        read("s3://corpora/a.jsonl")


def test_the_digest_follows_the_content(s3: Any) -> None:
    data = DataSpec(source="s3://corpora/reviews")
    s3.objects["reviews/a.jsonl"] = lines("a")
    first = digest_source(data)
    s3.objects["reviews/notes.md"] = b"x"
    assert digest_source(data) == first
    s3.objects["reviews/a.jsonl"] = lines("b")
    assert digest_source(data) != first
