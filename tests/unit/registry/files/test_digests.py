import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorry_registry.files.digests import (
    canonical_json,
    digest_bytes,
    digest_document,
    digest_file,
    digest_files,
)

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_the_canonical_form_survives_a_round_trip(document: object) -> None:
    once = canonical_json(document)
    assert canonical_json(json.loads(once)) == once


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest_document({"a": 1, "b": [2, 3]}) == digest_document({"b": [2, 3], "a": 1})
    assert digest_document({"a": 1}) != digest_document({"a": 2})


def test_the_canonical_form_is_the_one_of_old_manifests() -> None:
    # Frozen: every adapter id ever given depends on these bytes.
    assert (
        canonical_json({"é": [1.5, None, True], "a": {"b": "c d"}})
        == '{"a":{"b":"c d"},"é":[1.5,null,true]}'.encode()
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_json_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"loss": number})


def test_a_file_larger_than_a_chunk_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "weights").write_bytes(content)
    assert digest_file(tmp_path / "weights") == digest_bytes(content)
    assert digest_bytes(content) == "sha256:" + hashlib.sha256(content).hexdigest()


def test_the_digest_of_files_knows_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("same", "utf-8")
    assert digest_files(tmp_path, ["one", "two"]) == digest_files(tmp_path, ["two", "one"])
    assert digest_files(tmp_path, ["one", "two"]) != digest_files(tmp_path, ["one", "three"])
