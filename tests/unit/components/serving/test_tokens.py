"""Files of tokens: what a new token allows, what is stored of it, and which files are refused."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorry_components.serving.tokens import add_token, find_grant, read_grants
from lorry_registry.errors import UsageError


def test_a_token_is_found_by_what_is_stored_and_is_not_stored_itself(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    some, everything = add_token(path, ["b", "a", "b"]), add_token(path, None)
    assert some not in path.read_text()
    assert everything not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    grants = read_grants(path)
    found, all_tasks = find_grant(grants, some), find_grant(grants, everything)
    assert found is not None
    assert [found.allows(task) for task in ("a", "b", "c")] == [True, True, False]
    assert all_tasks is not None
    assert all_tasks.allows("c")
    for wrong in ("", some[:-1], some + "a", found.digest, "\udcff"):
        assert find_grant(grants, wrong) is None


def test_tokens_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("# by hand, without an end of line")
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _number: add_token(path, None), range(40)))
    grants = read_grants(path)
    assert all(find_grant(grants, token) for token in tokens)


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no token"),
        (b"# nothing\n\n", "no token"),
        (DIGEST.encode(), "tokens.txt:1"),
        (f"{DIGEST} a\nsecret a".encode(), "tokens.txt:2"),
        (f"{DIGEST} * a".encode(), "tokens.txt:1"),
        (f"{DIGEST} A/b".encode(), "tokens.txt:1"),
        (f"{DIGEST[1:]} a".encode(), "tokens.txt:1"),
        (b"\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "tokens.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as refused:
        read_grants(path)
    assert "secret" not in str(refused.value)


def test_a_name_that_no_task_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the name of a task"):
        add_token(tmp_path / "tokens.txt", ["*"])
    assert not (tmp_path / "tokens.txt").exists()
