"""A registry of thousands of tasks with ten versions each, in a folder and on S3, beside plain MLflow's.

    python tests/benchmarks/bench_registry.py                       # 1,000 tasks, some two minutes
    python tests/benchmarks/bench_registry.py --tasks 10000         # some ten minutes, 3 GiB of disk
    python tests/benchmarks/bench_registry.py --json results.json

S3 is SeaweedFS on this machine; MLflow is its client on SQLite, and a server over HTTP on the same database.
Stores are filled at once (registry_filling.py says how); what is measured goes through what users call. Times
are medians. The first column of each table is a registry of a hundredth of the tasks.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, Store
from lorry_registry.stores.s3_store import S3Store

# What the tests use as well: the S3 server.
sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.s3_server import BUCKET, find_ports, run_server
from registry_filling import copy_to_filer, fill_folder, fill_mlflow, make_adapter, name_task

VERSIONS, EVENTS, LISTED = 10, 1000, 1000
_COMMAND = (sys.executable, "-c", "from lorry_pipelines.cli import main; main()")

Results = dict[str, float]


def main() -> None:
    """Fill, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000, help="how many tasks the large registry has")
    parser.add_argument("--json", type=Path, help="where to write the numbers as well")
    parser.add_argument("--folder", type=Path, help="where to work, on a disk with room")
    given = parser.parse_args()
    # Whoever ends it ends the servers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(dir=given.folder, ignore_cleanup_errors=True) as name:
        results = measure_all(Path(name), given.tasks)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def measure_all(work: Path, tasks: int) -> dict[str, Results]:
    """Measure stores in a folder and on S3, small and large, and MLflow; print each as it is done."""
    sizes = {"small": max(1, tasks // 100), "large": tasks}
    results: dict[str, Results] = {}

    def note(name: str, found: Results) -> None:
        results[name] = found
        print(f"\n{name}")
        for what, value in found.items():
            print(f"  {what:<58}{value:12,.2f}", flush=True)

    for size, count in {**sizes, "listed": min(LISTED, tasks)}.items():
        started = time.perf_counter()
        keys = fill_folder(work / size, count, VERSIONS, whole=size == "listed")
        print(
            f"{keys:,} keys of {count:,} tasks written in {time.perf_counter() - started:.0f} s", flush=True
        )
    for size, count in sizes.items():
        note(f"folder, {count:,} tasks", measure_store(LocalStore(work / size), work, count))
    note(f"folder, a task of {EVENTS:,} events", measure_history(LocalStore(work / "large"), work))
    note("folder, in one process", measure_listing(LocalStore(work / "listed"), work))
    note("folder, commands", measure_commands(str(work / "listed"), str(work / "large"), work))
    (work / "weed").mkdir()
    with run_server(work / "weed") as server:
        os.environ.update(server.list_variables())
        for size in (*sizes, "listed"):
            started = time.perf_counter()
            copy_to_filer(work / size, server.filer, BUCKET)
            print(f"{size} copied to S3 in {time.perf_counter() - started:.0f} s", flush=True)
        for size, count in sizes.items():
            store = S3Store(f"s3://{BUCKET}/{size}")
            note(f"S3, {count:,} tasks", measure_store(store, work, count))
        note(f"S3, a task of {EVENTS:,} events", measure_history(S3Store(f"s3://{BUCKET}/large"), work))
        addresses = [f"s3://{BUCKET}/{size}" for size in ("listed", "large")]
        note("S3, in one process", measure_listing(S3Store(f"s3://{BUCKET}/listed"), work))
        note("S3, commands", measure_commands(addresses[0], addresses[1], work))
    for size, count in sizes.items():
        note(f"plain MLflow, SQLite, {count:,} tasks", measure_mlflow(work / f"mlflow-{size}.db", count))
    with serve_mlflow(work / "mlflow-large.db", work) as uri:
        note(f"plain MLflow, a server, {tasks:,} tasks", time_mlflow(uri, tasks))
    return results


# Lorry


def measure_store(store: Store, work: Path, tasks: int) -> Results:
    """Measure what one process does with a registry, in milliseconds and requests."""
    registry = Registry(store, work / "cache")
    chosen = random.Random(0)  # noqa: S311 -- which tasks are asked for
    names = [name_task(chosen.randrange(tasks)) for _ in range(200)]
    registry.resolve(names[0])
    found = {"resolve the champion, ms": time_each(registry.resolve, names)}
    with counting_requests(store) as count:
        registry.resolve(names[0])
    found["  requests" if count else "  round trips on S3: none"] = float(len(count))
    found["publish and register, ms"] = time_publications(registry, work, "task-00000", 20)
    return found


def measure_history(store: Store, work: Path) -> Results:
    """Measure a task with a long history, in milliseconds and requests."""
    registry, task = Registry(store, work / "cache"), "long"
    times = time_long_history(registry, work, task)
    found = {
        "register the 2nd to 51st version, ms": statistics.median(times[1:51]) * 1000,
        f"register the {EVENTS - 49}th to {EVENTS}th, ms": statistics.median(times[-50:]) * 1000,
        f"  the slowest of {EVENTS:,}: one that packs events, ms": max(times) * 1000,
        f"history of {EVENTS:,} events, ms": time_each(registry.ledger.read_history, [task] * 5),
    }
    with counting_requests(store) as count:
        registry.ledger.read_history(task)
    found["  requests for it"] = float(len(count))
    found["the same with each event read in its place, ms"] = time_each(
        lambda name: registry.ledger.read_history(name, packed=False), [task] * 3
    )
    with counting_requests(store) as count:
        state = registry.ledger.read_state(task)
        registry.ledger.claim_adapter(state, f"sha256:{'0' * 64}")
    found["  requests that tell whether an adapter is new to it"] = float(len(count))
    return found


def measure_listing(store: Store, work: Path) -> Results:
    """Measure listing the tasks of a registry with their champions, in milliseconds and requests."""
    registry = Registry(store, work / "cache")
    count = len(registry.list_tasks())
    found = {
        f"list {count:,} tasks with their champions, ms": time_each(lambda _: registry.list_tasks(), range(3))
    }
    with counting_requests(store) as requests:
        registry.list_tasks()
    return {**found, "  requests for it": float(len(requests))}


def time_publications(registry: Registry, work: Path, task: str, times: int) -> float:
    """Return the median milliseconds that publishing and registering another adapter of a task takes."""
    folder = work / "published"
    taken = []
    for seed in range(1000, 1000 + times):
        manifest, files = make_adapter(task, seed)
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        champion = registry.ledger.read_state(task).champion_version
        started = time.perf_counter()
        adapter_id = registry.publish(folder, manifest)
        registry.register(task, adapter_id, promote=True, judged_champion=champion, reasons=("better",))
        taken.append(time.perf_counter() - started)
        shutil.rmtree(folder)
    return statistics.median(taken) * 1000


def time_long_history(registry: Registry, work: Path, task: str) -> list[float]:
    """Give a task a long history through the registry; return the seconds that registering took each time."""
    taken = []
    for seed in range(EVENTS):
        manifest, _ = make_adapter(task, seed)
        content = manifest.serialize()
        # Only what registering reads: the files are another matter, and measured above.
        key = f"adapters/{manifest.adapter_id.removeprefix('sha256:')}/manifest.json"
        registry.store.create(key, content)
        started = time.perf_counter()
        registry.register(
            task, manifest.adapter_id, promote=True, judged_champion=seed or None, reasons=("better",)
        )
        taken.append(time.perf_counter() - started)
    return taken


def measure_commands(listed: str, large: str, work: Path) -> Results:
    """Measure commands from their start to their end, in seconds."""
    found = {}
    tasks = [
        ("lorry show, as JSON", large, ("show", "task-00003", "--json")),
        ("lorry show", large, ("show", "task-00003")),
        (f"lorry tasks, of {LISTED:,} tasks, as JSON", listed, ("tasks", "--json")),
        (f"lorry tasks, of {LISTED:,} tasks", listed, ("tasks",)),
        ("lorry history, of 10 events", large, ("history", "task-00003")),
        ("lorry show, of a name that is no task", large, ("show", "tusk-00003")),
    ]
    for name, store, arguments in tasks:
        environment = {**os.environ, "LORRY_STORE": store, "LORRY_HOME": str(work / "home")}
        code = 7 if "no task" in name else 0
        times, busy = [], []
        for _ in range(5):
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            run_command(environment, arguments, code)
            times.append(time.perf_counter() - started)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[f"{name}, s"] = statistics.median(times)
        # What it takes when other programs keep the machine busy as well.
        found[f"  {name}: of the processor, s"] = statistics.median(busy)
    return found


def run_command(environment: dict[str, str], arguments: tuple[str, ...], code: int) -> None:
    """Run a command of Lorry's, and see that it ends as it should."""
    ended = subprocess.run([*_COMMAND, *arguments], env=environment, capture_output=True, check=False)
    if ended.returncode != code:
        raise SystemExit(f"lorry {' '.join(arguments)}: {ended.stderr.decode()}")


@contextlib.contextmanager
def counting_requests(store: Store) -> Iterator[list[str]]:
    """Let the requests that a store on S3 sends be counted where they leave the process."""
    from botocore.httpsession import URLLib3Session

    sent: list[str] = []
    original = URLLib3Session.send

    def send(session: Any, request: Any) -> Any:
        sent.append(request.url)
        return original(session, request)

    URLLib3Session.send = send
    try:
        yield sent
    finally:
        URLLib3Session.send = original


# MLflow


def measure_mlflow(database: Path, tasks: int) -> Results:
    """Fill MLflow's SQLite database and measure its client on it, in milliseconds."""
    import mlflow

    uri = f"sqlite:///{database}"
    mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models(max_results=1)
    fill_mlflow(database, tasks, VERSIONS)
    return time_mlflow(uri, tasks)


def time_mlflow(uri: str, tasks: int) -> Results:
    """Measure MLflow's client, in milliseconds."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    chosen = random.Random(0)  # noqa: S311 -- which models are asked for
    names = [name_task(chosen.randrange(tasks)) for _ in range(200)]

    def resolve(name: str) -> object:
        return client.get_model_version_by_alias(name, "champion")

    def register(number: int) -> None:
        version = client.create_model_version("task-00000", f"s3://adapters/{number}", await_creation_for=0)
        client.set_registered_model_alias("task-00000", "champion", version.version)

    def list_models(_: int) -> None:
        listed, token = [], None
        while len(listed) < min(LISTED, tasks):
            page = client.search_registered_models(max_results=LISTED, page_token=token)
            listed.extend(page)
            token = page.token
            if not token:
                break

    def list_champions(_: int) -> None:
        for number in range(min(LISTED, tasks)):
            resolve(name_task(number))

    resolve(names[0])
    count = min(LISTED, tasks)
    return {
        "resolve by alias, ms": time_each(resolve, names),
        f"list {count:,} models without their champions, ms": time_each(list_models, range(3)),
        f"the champions of {count:,} models, ms": time_each(list_champions, range(1)),
        "create a version and set the alias, ms": time_each(register, range(20)),
    }


@contextlib.contextmanager
def serve_mlflow(database: Path, work: Path) -> Iterator[str]:
    """Run MLflow's server on a database."""
    (port,) = find_ports(1)
    with (work / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--backend-store-uri", f"sqlite:///{database}", "--workers", "1"),
                *("--artifacts-destination", str(work / "artifacts")),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310
                break
            time.sleep(0.5)
        yield uri
    finally:
        process.terminate()
        process.wait(30)


def time_each(function: Callable[[Any], object], arguments: Any) -> float:
    """Return the median milliseconds of a function over arguments."""
    taken = []
    for argument in arguments:
        started = time.perf_counter()
        function(argument)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


if __name__ == "__main__":
    main()
