"""What each check says of a machine on which something is wrong, and that it leaves nothing behind."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lorry_pipelines.diagnosis import Check, Finding, run_checks
from lorry_pipelines.diagnosis import machine_checks as machine
from lorry_pipelines.diagnosis.library_checks import check_libraries
from lorry_pipelines.diagnosis.mlflow_checks import check_mlflow
from lorry_pipelines.diagnosis.settings_checks import check_settings
from lorry_pipelines.diagnosis.store_checks import check_disk, check_store
from lorry_registry.errors import LorryError, NotFoundError, TrackingError
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore

from fixtures.s3_server import BUCKET, S3Server


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Settings]:
    return lambda **variables: Settings.load(variables, tmp_path)


def find(findings: object, subject: str) -> Finding:
    assert isinstance(findings, list)
    (found,) = (finding for finding in findings if finding.subject == subject)
    return found


# Running


def test_checks_run_at_once_and_none_holds_up_the_others() -> None:
    never = threading.Event()

    def wait(seconds: float, text: str) -> list[Finding]:
        never.wait(seconds)
        return [Finding("slow", "ok", text)]

    def break_down() -> list[Finding]:
        raise ValueError("https://user:geheim@host is odd\nand more")

    def refuse() -> list[Finding]:
        raise NotFoundError("there is none", where="here", todo="make one")

    started = time.monotonic()
    found = run_checks(
        [
            Check("A", "hangs", 0.5, lambda: wait(60, "never said")),
            Check("A", "first", 20, lambda: wait(0.3, "first")),
            Check("B", "second", 20, lambda: wait(0.3, "second")),
            Check("B", "breaks", 20, break_down),
            Check("B", "refuses", 20, refuse),
        ]
    )
    assert time.monotonic() - started < 5
    assert [(section, finding.level, finding.text) for section, finding in found] == [
        ("A", "failure", "no answer within 0.5 s"),
        ("A", "ok", "first"),
        ("B", "ok", "second"),
        ("B", "failure", "the check itself fails: ValueError: https://***@host is odd"),
        ("B", "failure", "here: there is none"),
    ]
    assert found[-1][1].todo == "make one"


# Settings


def test_a_setting_says_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "lorry.toml").write_text(
        'image = "mine"\nhome = "x"\ntracking_uri = "http://u:geheim@host"\n', "utf-8"
    )
    environment = {"LORRY_HOME": "home", "LORRY_STORE": "s3://bucket/x"}
    settings = Settings.load(environment, tmp_path)
    found = list(check_settings(settings, environment, tmp_path))
    assert find(found, "lorry.toml").text == str(tmp_path / "lorry.toml")
    assert find(found, "home").details == {"value": "home", "from": "LORRY_HOME"}
    assert find(found, "store").text == "s3://bucket/x   (LORRY_STORE)"
    assert find(found, "image").text == "mine   (lorry.toml)"
    assert find(found, "s3_kms_key").text == "not set   (default)"
    exposed = find(found, "tracking_uri")
    assert (exposed.level, exposed.text) == (
        "warning",
        "http://***@host   (lorry.toml, and holds a password)",
    )
    assert "move it to MLFLOW_TRACKING_URI" in exposed.todo


# The store in a folder


def test_a_folder_that_is_not_there_is_not_made(load: Callable[..., Settings], tmp_path: Path) -> None:
    found = list(check_store(load(LORRY_STORE="new/store")))
    assert find(found, "store").text == f"{tmp_path}/new/store: made by the first run"
    assert find(found, "registry").text == "0 tasks, no id yet: the first run makes it"
    assert list(tmp_path.iterdir()) == []


def test_a_registry_is_described(load: Callable[..., Settings], tmp_path: Path) -> None:
    registry_id = Registry(LocalStore(tmp_path / "store"), tmp_path / "cache").registry_id
    found = list(check_store(load(LORRY_STORE="store")))
    assert find(found, "store").text == f"{tmp_path}/store: read and write"
    assert find(found, "registry").details == {"id": registry_id, "tasks": 0}
    (tmp_path / "store" / "registry.json").write_text("{}", "utf-8")
    damaged = find(list(check_store(load(LORRY_STORE="store"))), "registry")
    assert (damaged.level, "not the id of a registry" in damaged.text) == ("failure", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_limited(load: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    found = find(list(check_store(load(LORRY_STORE="store"))), "store")
    assert (found.level, "resolve, pull and predict work" in found.text) == ("warning", True)


def test_a_file_in_place_of_the_store_is_a_failure(load: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    (found,) = (finding for finding in check_store(load(LORRY_STORE="store")) if finding.level == "failure")
    assert "is no folder that this user may read" in found.text
    below = check_store(load(LORRY_STORE="store/below"))
    assert [finding.level for finding in below] == ["failure"]


@pytest.mark.parametrize(("free", "level"), [(50 << 20, "failure"), (1 << 30, "warning"), (3 << 30, "ok")])
def test_a_full_disk_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    usage = type("Usage", (), {"free": free, "total": 4 << 30})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    found = check_disk("home", tmp_path / "not" / "there")
    assert (found.level, bool(found.todo)) == (level, level != "ok")


# The store on S3


def test_rights_on_s3_are_tried_and_nothing_is_left(
    load: Callable[..., Settings], s3_address: str, s3_environment: S3Server
) -> None:
    found = list(check_store(load(LORRY_STORE=s3_address)))
    assert {finding.level for finding in found} == {"ok"}
    rights = find(found, "store: rights")
    assert rights.details == {"rights": ["list", "read", "write", "delete"]}
    assert "conditional writes are kept" in rights.text
    prefix = s3_address.removeprefix(f"s3://{BUCKET}/")
    listed = s3_environment.open_client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    assert listed["KeyCount"] == 0


def test_wrong_credentials_are_told_from_a_wrong_bucket(
    load: Callable[..., Settings], s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = check_store(load(LORRY_STORE="s3://no-such-bucket/x"))
    assert (found.level, "there is no such bucket" in found.text) == ("failure", True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    (found,) = check_store(load(LORRY_STORE=s3_address))
    assert "S3 does not accept the credentials" in found.text
    assert "geheim" not in found.text + found.todo


def test_rights_that_are_missing_are_named_one_by_one(
    load: Callable[..., Settings], s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.client import BaseClient
    from botocore.exceptions import ClientError

    send = BaseClient._make_api_call
    denied = {"PutObject"}

    def refuse(client: BaseClient, operation: str, parameters: dict[str, object]) -> object:
        if operation in denied:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)
        return send(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    found = list(check_store(load(LORRY_STORE=s3_address)))
    refused = find(found, "store: write")
    assert refused.level == "warning"
    assert "s3:PutObject is not allowed; resolve, pull and predict work" in refused.text
    assert find(found, "store: rights").text == "list, read"
    denied = {"DeleteObject"}
    found = list(check_store(load(LORRY_STORE=s3_address)))
    assert (
        "s3:DeleteObject is not allowed; nothing that is old can be removed"
        in find(found, "store: delete").text
    )
    denied = {"GetObject"}
    found = list(check_store(load(LORRY_STORE=s3_address)))
    assert find(found, "store: read").level == "failure"


# MLflow


def test_a_database_is_looked_at_and_not_made(
    load: Callable[..., Settings], mlflow_uri: str, tmp_path: Path
) -> None:
    (found,) = check_mlflow(load(), {})
    assert found.text == f"sqlite:///{tmp_path}/.lorry/mlflow.db: made by the first run"
    assert not (tmp_path / ".lorry").exists()
    (found,) = check_mlflow(load(MLFLOW_TRACKING_URI=mlflow_uri), {})
    assert (found.level, "a database, its tables are there" in found.text) == ("ok", True)
    (tmp_path / "no.db").write_text("nothing of the kind", "utf-8")
    with pytest.raises(TrackingError, match="file is not a database"):
        check_mlflow(load(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/no.db"), {})


def test_a_database_whose_folder_was_moved_is_told(
    load: Callable[..., Settings], empty_mlflow: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copyfile(empty_mlflow, before / "mlflow.db")
    MlflowIndex(f"sqlite:///{before / 'mlflow.db'}").ensure_experiment("films")
    before.rename(after)
    with pytest.raises(TrackingError, match="this MLflow was moved") as caught:
        check_mlflow(load(MLFLOW_TRACKING_URI=f"sqlite:///{after / 'mlflow.db'}"), {})
    assert caught.value.todo == "run: lorry reconcile"


def test_another_kind_of_address_is_not_looked_at(load: Callable[..., Settings]) -> None:
    (found,) = check_mlflow(load(MLFLOW_TRACKING_URI="databricks"), {})
    assert (found.level, "neither a server nor a database" in found.text) == ("warning", True)


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, tuple[int, str]]], str]]:
    """Return a function that answers each path as told, every other with 404; it returns the address."""
    servers: list[HTTPServer] = []

    def start(answers: dict[str, tuple[int, str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, text = answers.get(self.path, (404, ""))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "what answers there is not MLflow"),
        ({"/version": (200, "<!doctype html>")}, "what answers there is not MLflow"),
        ({"/version": (401, "who are you")}, "MLflow does not accept who asks"),
        ({"/version": (403, "Invalid Host header - attack")}, "to be addressed by this name"),
        ({"/version": (200, "3.17.2")}, "cannot read experiments"),
    ],
)
def test_what_is_not_mlflow_is_told_apart(
    load: Callable[..., Settings],
    serve: Callable[[dict[str, tuple[int, str]]], str],
    answers: dict[str, tuple[int, str]],
    said: str,
) -> None:
    with pytest.raises(TrackingError, match=said):
        check_mlflow(load(MLFLOW_TRACKING_URI=serve(answers)), {})


def test_an_old_server_is_a_failure(
    load: Callable[..., Settings], serve: Callable[[dict[str, tuple[int, str]]], str]
) -> None:
    address = serve({"/version": (200, "2.19.0")})
    (found,) = check_mlflow(load(MLFLOW_TRACKING_URI=address), {"MLFLOW_TRACKING_TOKEN": "geheim"})
    assert (found.level, found.text) == (
        "failure",
        f"{address}: MLflow 2.19.0, with the token in MLFLOW_TRACKING_TOKEN; that is too old",
    )


def test_a_server_that_is_not_there_is_a_failure(load: Callable[..., Settings]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrackingError, match="Connection refused") as caught:
            check_mlflow(load(MLFLOW_TRACKING_URI=f"http://user:geheim@{address}"), {})
    assert "geheim" not in str(caught.value)


# Libraries


def test_libraries_are_compared_with_what_is_asked_for() -> None:
    found = check_libraries(
        [
            "pytest>=1",
            "click<1",
            "no-such-library>=2; extra == 'train'",
            "another-missing-one; extra == 'train'",
            "numpy>=1; extra == 'train'",
            "pytest>=1; extra == 'images'",
            "numpy>=1; extra == 'images'",
            "no-such-library; extra == 'images'",
            "rich>=1; extra == 'quantization'",
            "no-such-library; extra == 'dev'",
            "no-such-library; python_version < '3' and extra == 'quantization'",
        ]
    )
    needed, images, quantization, train = found
    assert (needed.level, "<1 was tested" in needed.text) == ("warning", True)
    assert (images.level, images.text) == ("warning", "incomplete: there is no no-such-library")
    assert (quantization.subject, quantization.level) == ("lorry[quantization]", "ok")
    assert (train.level, train.text) == (
        "ok",
        "not installed: there is no no-such-library, another-missing-one",
    )
    assert train.todo == "pip install 'lorry[train]'"


def test_a_needed_library_that_is_missing_is_a_failure() -> None:
    (found,) = check_libraries(["no-such-library>=2", "click"])
    assert (found.level, found.text) == ("failure", "no-such-library: not installed")


# The machine


def test_torch_that_hangs_or_breaks_is_a_failure_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIST_DEVICES", "import time; time.sleep(60)")
    (found,) = machine.check_devices(os.environ, 0.5)
    assert (found.level, found.text) == ("failure", "torch does not start within 0.5 s")
    monkeypatch.setattr(machine, "_LIST_DEVICES", "raise ImportError('libcudart.so.12: no such file')")
    (found,) = machine.check_devices(os.environ, 20)
    assert (found.level, "libcudart.so.12: no such file" in found.text) == ("failure", True)


def test_what_is_not_installed_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., Settings]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for found in (*machine.check_devices({}, 1), *machine.check_containers(load(), {})):
        assert (found.level, "not installed" in found.text) == ("ok", True)


def test_no_engine_is_no_failure(load: Callable[..., Settings]) -> None:
    (found,) = machine.check_containers(load(), {"DOCKER_HOST": "unix:///nowhere/engine.sock"})
    assert (found.level, "no engine answers" in found.text) == ("ok", True)


def test_a_home_below_a_file_is_a_failure(load: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = machine.check_home(load(LORRY_HOME="file/home"))
    assert found.level == "failure"
    assert LorryError.exit_code == 1
