"""Fixtures of the tests of prepare_data: task files in small, and an S3 that runs in a thread."""

import gzip
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from lorry_components.data.examples import Example
from lorry_components.data.reading import Reading, read_source
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import InvalidDataError
from lorry_registry.task_spec import BaseSpec, DataSpec, MethodSpec, TaskSpec

ReadSource = Callable[..., Reading]
ReadFaults = Callable[..., InvalidDataError]
WriteLines = Callable[..., Path]


@pytest.fixture
def make_spec() -> Callable[..., TaskSpec]:
    def make(source: Path | str, kind: str = "text-classification", **data: Any) -> TaskSpec:
        return TaskSpec(
            name="reviews",
            kind=kind,
            base=BaseSpec(model="/nowhere"),
            data=DataSpec.model_validate({"source": str(source), **data}),
            method=MethodSpec(name="lora"),
        )

    return make


@pytest.fixture
def read() -> ReadSource:
    def read_it(source: Path | str, kind: str = "text-classification", **data: Any) -> Reading:
        spec = DataSpec.model_validate({"source": str(source), **data})
        return read_source(spec, TASK_TYPES[kind](InputForm(spec.max_length)))

    return read_it


@pytest.fixture
def fail(read: ReadSource) -> ReadFaults:
    """Read a source that cannot be used; return the error, whose message is short whatever it is about."""

    def read_it(source: Path | str, kind: str = "text-classification", **data: Any) -> InvalidDataError:
        with pytest.raises(InvalidDataError) as caught:
            read(source, kind, **data)
        message = str(caught.value)
        assert len(message) < 6000
        assert str(source) in message
        assert "\n  -> " in message, "the message does not say what to do next"
        return caught.value

    return read_it


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write lines (objects become JSON) to a file in the test's folder."""

    def write(name: str, lines: Sequence[object], folder: Path = tmp_path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        path = folder / name
        content = text.encode("utf-8")
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def example() -> Callable[..., Example]:
    def make(text: str, label: str | float, pair: str | None = None) -> Example:
        return Example({"text": text} | ({} if pair is None else {"text_pair": pair}), label)

    return make


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("LORRY_TEST_DATA")
    if not folder:
        pytest.skip("LORRY_TEST_DATA names no folder of data sets")
    return Path(folder)


class FakeS3:
    """As much of S3 as reading needs, over HTTP, so that boto3 itself is under test."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.change_after_listing: dict[str, bytes] = {}

    def tag(self, key: str) -> str:
        return f'"{hash(self.objects[key]) & 0xFFFFFFFF:08x}"'

    def list_keys(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        entries, folders = [], set()
        for key in sorted(self.objects):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if "/" in rest:
                folders.add(prefix + rest.partition("/")[0] + "/")
                continue
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
                f"<ETag>{escape(self.tag(key))}</ETag></Contents>"
            )
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>false</IsTruncated>{''.join(entries)}{prefixes}</ListBucketResult>"
        ).encode()


def _make_handler(fake: FakeS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Keep the tests' output clean."""

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, *, send_body: bool) -> None:
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            fake.requests.append(f"{self.command} {bucket}/{key}")
            if bucket != "corpora":
                self._send(404, b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>", send_body)
            elif not key:
                self._send(200, fake.list_keys(parse_qs(parts.query)), send_body)
                fake.objects.update(fake.change_after_listing)
            elif key not in fake.objects:
                self._send(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", send_body)
            elif self.headers.get("If-Match", fake.tag(key)) != fake.tag(key):
                self._send(
                    412, b"<Error><Code>PreconditionFailed</Code><Message>moved</Message></Error>", send_body
                )
            else:
                self._send(200, fake.objects[key], send_body, fake.tag(key))

        def _send(self, status: int, body: bytes, send_body: bool, tag: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            if send_body:
                self.wfile.write(body)

    return Handler


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeS3]:
    fake = FakeS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(fake))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()
