"""Bases with a logical name: pushed to a folder or to S3, found there by name, whole or not at all."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from lorry_components.models.base_push import list_bases, push_base
from lorry_components.models.bases import find_base_folder, identify_base, resolve_base
from lorry_components.models.configuration import read_configuration
from lorry_components.models.named_bases import MANIFEST_NAME, BaseManifest, open_place
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import BaseModelError, ConflictError, StoreError
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec
from lorry_registry.tasks.task_references import refer_to_task
from lorry_registry.tasks.task_spec import TaskSpec

MakeBase = Callable[..., Path]
NAME = "tiny.bert-1"
TASK = {"name": "a", "kind": "text-classification", "data": {"source": "a"}, "method": {"name": "lora"}}


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> BasePlace:
    address = str(tmp_path / "bases") if request.param == "folder" else request.getfixturevalue("s3_address")
    return BasePlace(address=address, cache=tmp_path / "cache")


@pytest.fixture
def on_s3(s3_address: str, tmp_path: Path) -> BasePlace:
    return BasePlace(address=f"{s3_address}/bases", cache=tmp_path / "cache")


def push(folder: Path, place: BasePlace, name: str = NAME) -> str:
    return push_base(BaseSpec(model=str(folder)), name, place).state


def call(place: BasePlace, name: str = NAME, fingerprint: str | None = None) -> BaseSpec:
    return BaseSpec(model=f"bases:{name}", fingerprint=fingerprint).find_in(place)


def refuse(spec: BaseSpec) -> BaseModelError:
    with pytest.raises(BaseModelError) as caught:
        resolve_base(spec)
    assert caught.value.where
    assert caught.value.todo
    return caught.value


# Names


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a/../b", "../a", "/a", "a b", "a\n", "a" * 129]
)
def test_a_name_cannot_lead_out_of_its_place(name: str) -> None:
    with pytest.raises(ValidationError, match="must look like bases:NAME"):
        BaseSpec(model=f"bases:{name}")


def test_where_bases_are_is_no_part_of_a_task(tmp_path: Path) -> None:
    spec = BaseSpec(model="bases:minilm")
    placed = spec.find_in(BasePlace(address=str(tmp_path)))
    assert placed.place.address == str(tmp_path)
    assert placed == spec
    assert hash(placed) == hash(spec)
    assert placed.model_dump() == spec.model_dump()
    task = TaskSpec.model_validate(TASK | {"base": {"model": "bases:minilm"}})
    moved = task.model_copy(update={"base": placed})
    assert refer_to_task(task) == refer_to_task(moved)
    assert str(tmp_path) not in moved.model_dump_json()


def test_no_place_is_set() -> None:
    error = refuse(BaseSpec(model="bases:minilm"))
    assert "LORRY_BASES does not say where" in error.what
    assert "s3://BUCKET/PREFIX" in error.todo


def test_a_name_that_is_not_there_is_told_with_those_that_are(place: BasePlace, make_base: MakeBase) -> None:
    assert "lorry bases push" in refuse(call(place)).todo
    push(make_base(), place)
    assert f"did you mean {NAME!r}?" in refuse(call(place, "tiny.bert-2")).todo
    assert f"known are {NAME}" in refuse(call(place, "xyz")).todo


def test_a_link_out_of_the_place_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    place = BasePlace(address=str(tmp_path / "bases"))
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / NAME).symlink_to(make_base())
    assert "leads out" in refuse(call(place)).what


def test_a_champions_base_is_found_where_the_tasks_is(make_base: MakeBase, tmp_path: Path) -> None:
    place = BasePlace(address=str(tmp_path / "bases"))
    push(make_base("one"), place, "one")
    push(make_base("two", seed=1), place, "two")
    spec = TaskSpec.model_validate(TASK | {"base": {"model": "bases:one"}})
    task = resolve_task(spec.model_copy(update={"base": spec.base.find_in(place)}))
    assert task.find_base(BaseSpec(model="bases:two")).folder == tmp_path / "bases" / "two"


# Pushing and finding


def test_a_pushed_base_is_the_same_one(place: BasePlace, make_base: MakeBase) -> None:
    folder = make_base()
    (folder / "README.md").write_text("not part of it")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert push(folder, place) == "pushed"
    own = resolve_base(BaseSpec(model=str(folder))).identity
    found = resolve_base(call(place, fingerprint=own.fingerprint))
    assert found.identity == own.model_copy(update={"model": f"bases:{NAME}"})
    assert identify_base(call(place)) == found.identity
    names = {path.name for path in found.folder.iterdir()}
    assert not names & {"README.md", "pytorch_model.bin"}
    assert {"config.json", "model.safetensors", MANIFEST_NAME} <= names
    (listed,) = list_bases(place)
    assert (listed.name, listed.architecture, listed.fingerprint) == (NAME, "BertModel", own.fingerprint)
    assert listed.size_bytes == sum(
        path.stat().st_size for path in found.folder.iterdir() if path.name != MANIFEST_NAME
    )
    assert push(folder, place) == "present"


def test_another_fingerprint_than_the_task_expects_is_refused(place: BasePlace, make_base: MakeBase) -> None:
    push(make_base(), place)
    wrong = f"sha256:{'0' * 64}"
    assert f"the task expects {wrong}" in refuse(call(place, fingerprint=wrong)).what
    with pytest.raises(BaseModelError, match="the task expects"):
        identify_base(call(place, fingerprint=wrong))


def test_another_base_of_the_same_name_is_refused(place: BasePlace, make_base: MakeBase) -> None:
    first = make_base("first")
    push(first, place)
    before = resolve_base(call(place)).identity
    with pytest.raises(ConflictError, match=f"another base is called '{NAME}'") as caught:
        push(make_base("second", seed=1), place)
    assert "--name" in caught.value.todo
    assert resolve_base(call(place)).identity == before
    assert push(make_base("third", seed=1), place, "other") == "pushed"
    assert [base.name for base in list_bases(place)] == ["other", NAME]


def test_what_is_no_base_is_not_pushed(place: BasePlace, make_base: MakeBase, tmp_path: Path) -> None:
    folder = make_base()
    (folder / "model.safetensors").rename(folder / "model.bin")
    with pytest.raises(BaseModelError, match="pickles"):
        push(folder, place)
    assert not (tmp_path / "bases").exists()


def test_a_folder_made_by_other_means_is_a_base(make_base: MakeBase, tmp_path: Path) -> None:
    place = BasePlace(address=str(tmp_path / "bases"))
    folder = make_base()
    shutil.copytree(folder, tmp_path / "bases" / NAME)
    (tmp_path / "bases" / "broken").mkdir()
    fingerprint = resolve_base(BaseSpec(model=str(folder))).identity.fingerprint
    assert resolve_base(call(place)).identity.fingerprint == fingerprint
    broken, whole = list_bases(place)
    assert (whole.fingerprint, whole.problem) == (fingerprint, "")
    assert (broken.fingerprint, "there is no config.json" in broken.problem) == (None, True)
    assert push(folder, place) == "present"


def test_the_configuration_is_read_without_the_weights(
    place: BasePlace, make_base: MakeBase, tmp_path: Path
) -> None:
    push(make_base(), place)
    assert read_configuration(call(place)).values["hidden_size"] == 32
    identify_base(call(place))
    assert not (tmp_path / "cache").exists()


# Damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_noticed(place: BasePlace, make_base: MakeBase) -> None:
    push(make_base(), place)
    folder = resolve_base(call(place)).folder
    flip(folder / "model.safetensors")
    error = refuse(call(place))
    assert "not those that were pushed" in error.what
    assert error.where == str(folder)
    if place.is_remote:
        shutil.rmtree(folder)
        assert resolve_base(call(place)).folder == folder


def test_an_object_that_was_changed_is_never_used(on_s3: BasePlace, make_base: MakeBase) -> None:
    push(make_base(), on_s3)
    store, prefix = open_place(on_s3)
    key = next(key for key in store.list_keys(f"{prefix}/{NAME}") if key.endswith("model.safetensors"))
    stored = store.read(key)
    assert stored is not None
    store.overwrite(key, stored.content[:-1] + bytes([stored.content[-1] ^ 1]))
    error = refuse(call(on_s3))
    assert error.where == store.locate(key)
    assert not [path for path in on_s3.cache.iterdir() if path.is_dir()]
    store.delete(key)
    assert "is missing" in refuse(call(on_s3)).what
    # Pushing again brings back what is missing.
    assert push(make_base("again"), on_s3) == "pushed"
    assert resolve_base(call(on_s3)).identity.architecture == "BertModel"


@pytest.mark.parametrize("name", ["../../evil", "/evil", ".evil", "a/../../evil"])
def test_a_manifest_cannot_name_files_elsewhere(
    on_s3: BasePlace, make_base: MakeBase, name: str, tmp_path: Path
) -> None:
    push(make_base(), on_s3)
    store, prefix = open_place(on_s3)
    key = f"{prefix}/{NAME}/{MANIFEST_NAME}"
    stored = store.read(key)
    assert stored is not None
    document = json.loads(stored.content)
    document["files"][0]["name"] = name
    store.overwrite(key, json.dumps(document).encode())
    assert "cannot be read" in refuse(call(on_s3)).what
    assert not list(tmp_path.rglob("*evil*"))


def test_a_manifest_whose_fingerprint_is_not_that_of_its_files_is_refused() -> None:
    file = {"name": "config.json", "size": 1, "sha256": f"sha256:{'1' * 64}"}
    document = {"architecture": "A", "fingerprint": f"sha256:{'0' * 64}", "files": [file]}
    with pytest.raises(BaseModelError, match="its fingerprint is not that of its files"):
        BaseManifest.parse(json.dumps(document).encode(), where="here")


def test_a_cache_that_cannot_be_written_is_told(
    on_s3: BasePlace, make_base: MakeBase, tmp_path: Path
) -> None:
    push(make_base(), on_s3)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match="cannot be kept here"):
        resolve_base(call(on_s3))


# Processes

# Does a job again and again in children, each killed one step later than the one before, until one comes
# through. After each kill it prints what is there.
_KILLS = """
import os, signal, sys
from pathlib import Path
from lorry_components.models import base_push, named_bases
from lorry_registry.stores import s3_store
from lorry_registry.files import atomic_write
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec

job, folder, address, cache = sys.argv[1:]
place = BasePlace(address=address, cache=Path(cache))
spec = BaseSpec(model="bases:half").find_in(place)
countdown = 0


def tick():
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def hook(owner, name):
    original = getattr(owner, name)

    def step(*arguments, **options):
        tick()
        result = original(*arguments, **options)
        tick()
        return result

    setattr(owner, name, step)


hook(base_push.shutil, "copyfile")
hook(Path, "rename")
hook(Path, "replace")
hook(s3_store.S3Store, "upload")
hook(s3_store.S3Store, "create")
hook(s3_store.S3Store, "download")
# One after the other, so that each step is in the same place each time.
named_bases._DOWNLOADS = 1
kills = 0
while True:
    child = os.fork()
    if child == 0:
        countdown = kills + 1
        if job == "push":
            base_push.push_base(BaseSpec(model=folder), "half", place)
        else:
            named_bases.find_named_folder(spec)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
    if job == "push":
        seen = [base.name for base in base_push.list_bases(place)] if not place.is_remote or kills else []
    else:
        seen = [path.name for path in place.cache.iterdir() if not path.name.startswith(".")]
    print(kills, *seen, flush=True)
"""


def run_kills(job: str, folder: Path, place: BasePlace) -> list[list[str]]:
    command = [sys.executable, "-c", _KILLS, job, str(folder), place.address, str(place.cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split()[1:] for line in done.stdout.splitlines()]


def test_a_push_that_is_killed_leaves_nothing_half(
    place: BasePlace, make_base: MakeBase, tmp_path: Path
) -> None:
    (tmp_path / "bases").mkdir()
    folder = make_base()
    seen = run_kills("push", folder, place)
    assert len(seen) > 3
    # It is there after the last step, and not before.
    first = next((index for index, names in enumerate(seen) if names), len(seen))
    assert first >= len(seen) - 2
    assert all(names == ["half"] for names in seen[first:])
    assert push(folder, place, "half") == "present"
    resolve_base(call(place, "half"))


def test_a_download_that_is_killed_leaves_nothing_half(on_s3: BasePlace, make_base: MakeBase) -> None:
    folder = make_base()
    push(folder, on_s3, "half")
    seen = run_kills("download", folder, on_s3)
    assert len(seen) > 5
    assert not any(seen[:-2])
    base = resolve_base(call(on_s3, "half"))
    assert sorted(path.name for path in on_s3.cache.iterdir()) == [
        f".{base.folder.name}.lock",
        base.folder.name,
    ]


_FIND = """
import sys
from pathlib import Path
from lorry_components.models import named_bases
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec

original = named_bases._download
def note(*arguments):
    print("downloads", flush=True)
    original(*arguments)
named_bases._download = note
place = BasePlace(address=sys.argv[1], cache=Path(sys.argv[2]))
sys.stdin.readline()
print(named_bases.find_named_folder(BaseSpec(model="bases:shared").find_in(place)))
"""


def test_of_several_processes_one_downloads(on_s3: BasePlace, make_base: MakeBase) -> None:
    push(make_base(), on_s3, "shared")
    command = [sys.executable, "-c", _FIND, on_s3.address, str(on_s3.cache)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(lines.count("downloads") for lines in told) == 1
    assert {lines[-1] for lines in told} == {str(find_base_folder(call(on_s3, "shared")))}
