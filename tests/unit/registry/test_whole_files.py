import threading
from pathlib import Path

import pytest

from lorry_registry.whole_files import write_whole, write_whole_text


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"\x00first")
    assert path.read_bytes() == b"\x00first"
    write_whole_text(path, "zweite Fassung: é\n")
    assert path.read_bytes() == "zweite Fassung: é\n".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_leaves_the_former_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"former")

    def fail(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:3])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new content")
    assert path.read_bytes() == b"former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "a.json", b"x")


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = {letter.encode() * 300_000 for letter in "ab"}
    write_whole(path, b"a" * 300_000)
    is_done = threading.Event()

    def write() -> None:
        for content in sorted(contents) * 20:
            write_whole(path, content)
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not is_done.is_set():
        assert path.read_bytes() in contents
    writer.join()
