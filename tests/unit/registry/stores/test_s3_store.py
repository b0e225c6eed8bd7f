"""What a store on S3 does beyond the contract of all stores."""

import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.registry import Registry
from lorry_registry.retries import RetryPolicy
from lorry_registry.stores import S3Options, Store, open_store
from lorry_registry.stores import s3_store as s3_module
from lorry_registry.stores.s3_client import make_client
from lorry_registry.stores.s3_errors import explain_error
from lorry_registry.stores.s3_store import S3Store

from fixtures.s3_server import BUCKET, QUICK, SECRET_KEY, S3Server

_MIB = 1 << 20


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a file of 64 MiB."""
    path = tmp_path / "weights"
    with path.open("wb") as stream:
        for number in range(64):
            stream.write(bytes([number]) * _MIB)
    return path


@pytest.fixture
def measure_peak() -> Iterator[Callable[[], float]]:
    """Return a function that gives the most MiB that Python held at once since the last call."""
    tracemalloc.start()

    def measure() -> float:
        peak = tracemalloc.get_traced_memory()[1] / _MIB
        tracemalloc.reset_peak()
        return peak

    yield measure
    tracemalloc.stop()


def test_a_store_is_opened_by_its_address(s3_address: str) -> None:
    store = open_store(f"{s3_address}/")
    assert isinstance(store, S3Store)
    assert store.address == s3_address
    assert store.locate("a/b") == f"{s3_address}/a/b"
    assert store.find_path("a/b") is None
    assert open_store(f"s3://{BUCKET}").locate("a") == f"s3://{BUCKET}/a"
    assert open_store(f"s3://{BUCKET}/").address == f"s3://{BUCKET}"


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3:///prefix",
        "s3://Not_A_Bucket/x",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket/a?x=1",
        "s3://bucket/a#x",
        "s3://key:hunter2@bucket/a",
        "s3://[::1",
        "http://[::1",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match=r"not the address of a bucket|not a key|not an address") as caught:
        open_store(address)
    assert "hunter2" not in str(caught.value)


def test_a_listing_has_many_pages(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_PAGE_KEYS", 3)
    for number in range(10):
        s3_store.create(f"tasks/t{number}/head.json", b"")
    assert s3_store.list_children("tasks") == [f"t{number}" for number in range(10)]
    assert list(s3_store.list_keys("tasks")) == [f"tasks/t{number}/head.json" for number in range(10)]


def test_what_people_put_beside_the_keys_is_not_listed(s3_store: S3Store, s3_server: S3Server) -> None:
    s3_store.create("tasks/t/head.json", b"")
    prefix = s3_store.address.removeprefix(f"s3://{BUCKET}/")
    client = s3_server.open_client()
    for name in ("tasks/", "tasks/.hidden", "tasks/t/.hidden/x"):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=b"")
    client.put_object(Bucket=BUCKET, Key=f"{prefix}0/tasks/other", Body=b"")
    assert s3_store.list_children("tasks") == ["t"]
    assert list(s3_store.list_keys("tasks")) == ["tasks/t/head.json"]


def test_large_files_take_little_memory(
    s3_store: S3Store, weights: Path, tmp_path: Path, measure_peak: Callable[[], float]
) -> None:
    s3_store.check_writable()
    measure_peak()
    s3_store.upload("a/weights", weights)
    assert measure_peak() < 48
    assert s3_store.digest_key("a/weights") == s3_module.digest_file(weights)
    s3_store.download("a/weights", tmp_path / "out")
    assert measure_peak() < 16
    assert (tmp_path / "out").stat().st_size == weights.stat().st_size
    assert s3_module.digest_file(tmp_path / "out") == s3_module.digest_file(weights)
    s3_store.upload("a/weights", weights)
    assert measure_peak() < 16
    with weights.open("r+b") as stream:
        stream.write(b"another")
    with pytest.raises(ConflictError, match="exists with other content"):
        s3_store.upload("a/weights", weights)


def test_an_upload_is_checked_by_its_sha256(s3_store: S3Store, s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"weights")
    s3_store.upload("a/weights", tmp_path / "in")
    s3_store.create("a/manifest", b"{}")
    client, prefix = s3_server.open_client(), s3_store.address.removeprefix(f"s3://{BUCKET}/")
    for key in ("a/weights", "a/manifest"):
        head = client.head_object(Bucket=BUCKET, Key=f"{prefix}/{key}", ChecksumMode="ENABLED")
        assert "ChecksumSHA256" in head


def test_the_probe_leaves_nothing(s3_store: S3Store, list_objects: Callable[[S3Store], list[str]]) -> None:
    s3_store.check_writable()
    s3_store.create("a", b"")
    assert list_objects(s3_store) == ["a"]


def _strip(*headers: str) -> Callable[..., None]:
    def strip(request: Any, **_: Any) -> None:
        for header in headers:
            del request.headers[header]

    return strip


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(
    s3_store: S3Store, header: str, list_objects: Callable[[S3Store], list[str]], tmp_path: Path
) -> None:
    s3_store._client.meta.events.register("before-sign.s3.PutObject", _strip(header))
    (tmp_path / "in").touch()
    for action in (
        s3_store.check_writable,
        lambda: s3_store.create("a/b", b"1"),
        lambda: s3_store.compare_and_swap("a/b", b"1", None),
        lambda: s3_store.upload("a/b", tmp_path / "in"),
    ):
        with pytest.raises(StoreError, match=f"ignores {header.replace('-', '')}: two writers") as caught:
            action()
        assert "conditional writes" in caught.value.todo
    assert list_objects(s3_store) == []


def test_a_server_that_ignores_the_condition_of_an_upload_in_parts_is_refused(
    s3_store: S3Store,
    s3_server: S3Server,
    weights: Path,
    list_objects: Callable[[S3Store], list[str]],
) -> None:
    s3_store._client.meta.events.register("before-sign.s3.CompleteMultipartUpload", _strip("If-None-Match"))
    s3_store.create("small", b"is not affected")
    with pytest.raises(StoreError, match="ignores IfNoneMatch at the end of an upload in parts") as caught:
        s3_store.upload("a/weights", weights)
    assert "conditional writes" in caught.value.todo
    assert list_objects(s3_store) == ["small"]
    prefix = s3_store.address.removeprefix(f"s3://{BUCKET}/")
    answer = s3_server.open_client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    assert not answer.get("Uploads")


def test_the_probe_of_uploads_in_parts_is_made_once_before_the_first(
    s3_store: S3Store, weights: Path, list_objects: Callable[[S3Store], list[str]]
) -> None:
    probes: list[str] = []

    def record(params: dict[str, Any], **_: Any) -> None:
        probes.extend([params["Key"]] if "lorry-check" in params["Key"] else [])

    s3_store._client.meta.events.register("before-parameter-build.s3.CreateMultipartUpload", record)
    s3_store.create("small", b"")
    assert not probes
    for name in ("a", "b"):
        s3_store.upload(f"{name}/weights", weights)
    assert len(probes) == 1
    assert list_objects(s3_store) == ["a/weights", "b/weights", "small"]


def test_the_probe_is_made_once_for_each_store(s3_address: str) -> None:
    store = S3Store(s3_address, retries=QUICK)
    writes: list[str] = []

    def record(params: dict[str, Any], **_: Any) -> None:
        writes.append(params["Key"])

    store._client.meta.events.register("before-parameter-build.s3.PutObject", record)
    store.create("a", b"")
    store.create("b", b"")
    assert len([key for key in writes if "lorry-check" in key]) == 3
    assert [key.rpartition("/")[2] for key in writes[3:]] == ["a", "b"]


def test_there_is_no_such_bucket(s3_environment: S3Server, tmp_path: Path) -> None:
    store = S3Store("s3://no-such-bucket/store", retries=QUICK)
    for action in (
        store.check_writable,
        lambda: store.read("a"),
        lambda: store.download("a", tmp_path / "out"),
        lambda: store.list_children("a"),
        lambda: store.create("a", b""),
    ):
        with pytest.raises(StoreError, match="there is no such bucket") as caught:
            action()
        assert not isinstance(caught.value, NotFoundError)
        assert caught.value.where.startswith("s3://no-such-bucket/store")
        assert "LORRY_STORE" in caught.value.todo


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-hunter2"}, "S3 does not accept the credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "S3 does not accept the credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials for S3"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials for S3"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"AWS_ENDPOINT_URL_S3": "http://me:hunter2@127.0.0.1:9"}, "the S3 endpoint holds credentials"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "Invalid endpoint"),
        ({"AWS_ENDPOINT_URL_S3": "http//me:hunter2@host"}, "Invalid endpoint"),
        ({"AWS_PROFILE": "missing"}, "missing"),
    ],
)
def test_settings_that_do_not_work_are_one_clear_error(
    s3_environment: S3Server, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value) if value else monkeypatch.delenv(variable)
    store = S3Store(f"s3://{BUCKET}/store", retries=QUICK)
    for action in (lambda: store.read("a"), lambda: store.create("a", b""), store.check_writable):
        with pytest.raises(StoreError, match=message) as caught:
            action()
        shown = str(caught.value)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
        assert "\n  -> " in shown
        assert "hunter2" not in shown
        assert SECRET_KEY not in shown


@pytest.mark.parametrize(
    ("code", "status", "message", "todo"),
    [
        ("RequestTimeTooSkewed", 403, "the clock of this machine", "set the clock"),
        ("AccessDenied", 403, "access denied, s3:GetObject is not allowed", "s3:ListBucket"),
        ("403", 403, "access denied, s3:GetObject is not allowed", "allow s3:GetObject"),
        ("PermanentRedirect", 301, "another region", "AWS_DEFAULT_REGION"),
        ("ExpiredToken", 400, "does not accept the credentials", "AWS_PROFILE"),
        ("KMS.DisabledException", 400, "KMS.DisabledException", "LORRY_S3_KMS_KEY"),
        ("NotImplemented", 501, "lacks what Lorry needs", "conditional writes"),
        ("SlowDown", 503, "S3 still answers SlowDown", "later"),
        ("Strange", 400, "S3 answers Strange", "LORRY_STORE"),
    ],
)
def test_an_answer_is_explained(code: str, status: int, message: str, todo: str) -> None:
    answer = {"Error": {"Code": code, "Message": "x" * 999}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = explain_error(
        ClientError(answer, "GetObject"), verb="read", action="s3:GetObject", where="s3://b/k", endpoint="E"
    )
    assert message in error.what
    assert error.what.startswith("cannot read: ")
    assert error.where == "s3://b/k"
    assert todo in error.todo
    assert len(str(error)) < 500


def test_pauses_grow_and_are_bounded() -> None:
    retries = RetryPolicy(attempts=9, first_seconds=0.2, longest_seconds=1.0)
    for attempt, longest in enumerate((0.2, 0.4, 0.8, 1.0, 1.0), start=1):
        pauses = {retries.choose_pause(attempt) for _ in range(50)}
        assert len(pauses) > 1
        assert longest / 2 <= min(pauses)
        assert max(pauses) <= longest


def test_what_is_stored_is_encrypted_as_the_settings_say(s3_address: str, tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        # The server here has no keys: it is not asked to encrypt.
        sent.append({name: params.pop(name) for name in ("ServerSideEncryption", "SSEKMSKeyId")})

    store = S3Store(s3_address, S3Options(encryption="aws:kms", kms_key="key"), retries=QUICK)
    for operation in ("PutObject", "CreateMultipartUpload"):
        store._client.meta.events.register(f"before-parameter-build.s3.{operation}", note)
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(17 * _MIB)
    (tmp_path / "small").touch()
    store.upload("a/large", tmp_path / "large")
    store.upload("a/small", tmp_path / "small")
    store.create("a/b", b"")
    store.compare_and_swap("a/c", b"", None)
    # The probe's three, those of the probe of uploads in parts, and what was asked for.
    assert len(sent) == 3 + 2 + 4
    assert {(each["ServerSideEncryption"], each["SSEKMSKeyId"]) for each in sent} == {("aws:kms", "key")}


def test_the_bucket_is_in_the_path_of_a_server_of_its_own_and_in_the_host_of_aws(
    s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint, start in {
        "https://s3.example.org": "https://s3.example.org/corpus/k",
        "": "https://corpus.s3.",
    }.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        url = make_client().generate_presigned_url("get_object", Params={"Bucket": "corpus", "Key": "k"})
        assert url.startswith(start)


def test_publishing_takes_little_memory_on_a_folder_and_on_s3(
    store: Store,
    s3_store: S3Store,
    make_adapter: Callable[..., Any],
    make_large: Callable[[Any], Any],
    tmp_path: Path,
    measure_peak: Callable[[], float],
) -> None:
    adapter = make_adapter()
    manifest = make_large(adapter)
    for each in (store, s3_store):
        registry = Registry(each, tmp_path / "cache")
        measure_peak()
        registry.publish(adapter.path, manifest)
        assert measure_peak() < 48
        assert registry.fetch(manifest.adapter_id).is_dir()
        assert measure_peak() < 16
