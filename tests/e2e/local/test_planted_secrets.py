"""Nothing that a run leaves behind or prints holds a secret, whether it succeeds or fails."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIA-planted-1",
    "AWS_SECRET_ACCESS_KEY": "planted-2-aws",
    "AWS_SESSION_TOKEN": "planted-3-session",
    "HF_TOKEN": "hf_planted-4",
    "MLFLOW_TRACKING_PASSWORD": "planted-5-password",
    "MLFLOW_TRACKING_TOKEN": "planted-6-token",
    "LORRY_SIGNING_KEY_PASSWORD": "planted-10-signing",
}
USER, PASSWORD, QUERY = "planted-7-user", "planted-8-password", "planted-9-query"
SECRETS = (*PLANTED.values(), USER, PASSWORD, QUERY)


class _Breaking(http.server.BaseHTTPRequestHandler):
    """An MLflow that is there when a run starts, and breaks every connection after that."""

    def do_POST(self) -> None:
        if "experiments/search" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")
        elif "experiments/get-by-name" in self.path:
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is none"}')
        self.close_connection = True

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def breaking_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def check_nothing_planted(folder: Path, printed: str) -> None:
    for secret in SECRETS:
        assert secret not in printed
        for path in folder.rglob("*"):
            # MLflow's database is one of these files, with every tag, parameter and description.
            if path.is_file() and not path.is_symlink():
                assert secret.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_no_file_log_mlflow_field_or_pipeline_holds_a_secret(workspace: Any, breaking_server: str) -> None:
    task = workspace.write_task("reviews")
    tracking = {
        "failing": f"http://{USER}:{PASSWORD}@{breaking_server}/?token={QUERY}",
        "token": f"http://{PASSWORD}@{breaking_server}",
    }
    for address in tracking.values():
        environment = PLANTED | {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        failed = workspace.run("run", task, code=12, **environment)
        compiled = workspace.run("compile", task, "--target", "local", "-o", "compiled.yaml", **environment)
        check_nothing_planted(workspace.folder, failed.out + failed.err + compiled.out + compiled.err)
        # It did fail where the address was in the traceback.
        assert workspace.read_outcome("reviews", "finetune")["status"] == "failed"
        log = (workspace.list_runs()[-1] / "pipeline.log").read_text("utf-8")
        assert "reviews: finetune failed" in log
        assert f"http://***@{breaking_server}" in log
    succeeded = workspace.run("run", task, **PLANTED)
    check_nothing_planted(workspace.folder, succeeded.out + succeeded.err)
    assert workspace.list_adapters()
    assert (workspace.home / "mlflow.db").exists()
