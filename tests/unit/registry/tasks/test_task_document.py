import time
from pathlib import Path

import pytest

from lorry_registry.errors import InvalidTaskError, UsageError
from lorry_registry.tasks.task_document import apply_overrides, load_document, suggest_name


def _load(folder: Path, content: bytes | str) -> dict[str, object]:
    path = folder / "task.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_document(path).content


def test_lines_are_known_by_dotted_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: x\n\nmethod:\n  name: lora\n  # why\n  r: 8\n", "utf-8")
    document = load_document(tmp_path / "a.yaml")
    assert document.content == {"name": "x", "method": {"name": "lora", "r": 8}}
    assert document.lines == {"name": 1, "method": 3, "method.name": 4, "method.r": 6}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a task is a mapping of fields"),
        ("- a\n- b\n", "a task is a mapping of fields"),
        ("just words", "a task is a mapping of fields"),
        ("a: [1,\n", "not YAML"),
        ("a: !!python/object:os.system x\n", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("? [a, b]\n: 1\n", "not YAML"),
        (b"name: \xff\xfe\n", "cannot be read as text"),
        (b"name: \x00\n", "not YAML"),
        ("name: 2024-13-45\n", "a value cannot be read"),
        ("name: " + "9" * 5000 + "\n", "a value cannot be read"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("name: x\n" + "#" * (1 << 20), "are too many for a task file"),
        ("a: 1\nb: 2\na: 3\n", "line 3, a: was given already on line 1"),
        ("a:\n  b: 1\n  b: 2\n", "line 3, a.b: was given already on line 2"),
    ],
)
def test_what_is_not_a_task_file_is_told_in_one_message(
    tmp_path: Path, content: bytes | str, said: str
) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        _load(tmp_path, content)
    assert said in str(caught.value)
    assert str(tmp_path / "task.yaml") in str(caught.value)


def test_aliases_are_fine_even_when_one_lies_in_itself(tmp_path: Path) -> None:
    assert _load(tmp_path, "a: &x {r: 1}\nb: *x\n") == {"a": {"r": 1}, "b": {"r": 1}}
    looped = _load(tmp_path, "a: &x\n  b: *x\n")
    assert looped["a"]["b"] is looped["a"]  # type: ignore[index]


def _nest_aliases(depth: int, wide: str) -> str:
    """Lists of lists of lists: each line repeats the one before it nine times."""
    lines = [f"a0: &a0 [{','.join(['x'] * 9)}]"]
    lines += [f"a{n}: &a{n} {wide.format(','.join([f'*a{n - 1}'] * 9))}" for n in range(1, depth)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("wide", ["[{}]", "{{b: [{}]}}", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(tmp_path: Path, wide: str) -> None:
    content = _nest_aliases(12, wide)
    if "<<" in wide:
        content = content.replace("[x,x,x,x,x,x,x,x,x]", "{b: x}")
    assert len(content) < 1000
    begin = time.monotonic()
    with pytest.raises(InvalidTaskError, match="aliases repeat more than 10,000 values") as caught:
        _load(tmp_path, content)
    assert time.monotonic() - begin < 5
    assert caught.value.faults[0].remedy == "write out what is meant"
    with pytest.raises(UsageError, match="aliases repeat more than 10,000 values"):
        apply_overrides({}, [f"a={content}"], where="task.yaml")


def test_a_graph_of_values_inside_each_other_is_refused_too(tmp_path: Path) -> None:
    # Each value contains itself and all of those above it.
    content = "".join(
        f"v{index}: &v{index} [{', '.join(f'*v{other}' for other in range(index + 1))}]\n"
        for index in range(30)
    )
    with pytest.raises(InvalidTaskError, match="aliases repeat more than"):
        _load(tmp_path, content)


def test_a_few_aliases_and_merged_keys_are_fine(tmp_path: Path) -> None:
    assert _load(tmp_path, _nest_aliases(3, "[{}]"))["a2"] == [[["x"] * 9] * 9] * 9
    merged = _load(tmp_path, "a: &x {r: 1, s: 2}\nb: {<<: *x, r: 3}\n")
    assert merged["b"] == {"r": 3, "s": 2}
    long = "a: [" + ", ".join(["1"] * 50_000) + "]\n"
    assert len(_load(tmp_path, long)["a"]) == 50_000  # type: ignore[arg-type]


def test_a_fault_has_its_line_as_a_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        _load(tmp_path, "a: 1\nb: [1,\n")
    (fault,) = caught.value.faults
    assert (fault.line, fault.where) == (3, "column 1")
    with pytest.raises(InvalidTaskError) as caught:
        _load(tmp_path, "a: 1\na: 2\n")
    assert [(fault.line, fault.where) for fault in caught.value.faults] == [(2, "a")]


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "reviews.yaml").write_text("name: reviews\n", "utf-8")
    with pytest.raises(InvalidTaskError, match=r"did you mean 'reviews\.yaml'\?"):
        load_document(tmp_path / "review.yaml")
    with pytest.raises(InvalidTaskError, match="give the path of a task's YAML file"):
        load_document(tmp_path / "nowhere" / "review.yaml")
    with pytest.raises(InvalidTaskError, match="it is a folder"):
        load_document(tmp_path)


def test_overrides_are_parsed_as_yaml_and_leave_the_document_alone() -> None:
    document = {"method": {"name": "lora", "r": 8}}
    changed = apply_overrides(
        document, ["method.r=16", "train.seed=3", "method.targets=[query, value]"], where="x"
    )
    assert changed == {
        "method": {"name": "lora", "r": 16, "targets": ["query", "value"]},
        "train": {"seed": 3},
    }
    assert document == {"method": {"name": "lora", "r": 8}}
    assert apply_overrides({}, ["owner=a=b"], where="x") == {"owner": "a=b"}


def test_an_override_of_one_section_leaves_its_aliases_alone(tmp_path: Path) -> None:
    document = _load(tmp_path, "a: &x {r: {s: 1}}\nb: *x\n")
    assert apply_overrides(document, ["a.r.s=2"], where="x") == {"a": {"r": {"s": 2}}, "b": {"r": {"s": 1}}}


@pytest.mark.parametrize(
    "override", ["method.r", "=1", "method..r=1", ".r=1", "method.name.r=1", "a=[1", "a=2024-13-45"]
)
def test_an_override_that_makes_no_sense_is_refused(override: str) -> None:
    with pytest.raises(UsageError):
        apply_overrides({"method": {"name": "lora"}}, [override], where="task.yaml")


def test_an_override_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        apply_overrides({}, ["a=" + "[" * 100_000], where="task.yaml")


@pytest.mark.parametrize(
    ("wrong", "known", "said"),
    [
        ("lorra", ["full", "lora"], "did you mean 'lora'?"),
        ("zzz", ["lora", "full"], "known are full, lora"),
        ("zzz", [], "known are none"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(wrong: str, known: list[str], said: str) -> None:
    assert suggest_name(wrong, known) == said
