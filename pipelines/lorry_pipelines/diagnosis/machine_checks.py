"""This machine: its processors, memory, accelerators, containers, and the disk of LORRY_HOME."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorry_pipelines.diagnosis.findings import Finding
from lorry_pipelines.diagnosis.store_checks import check_disk
from lorry_pipelines.step_images import choose_images
from lorry_registry.settings import Settings
from lorry_registry.text.sizes import format_size

_FEW_BYTES = 2 << 30
_ENGINE_SECONDS = 5
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"
# No control group limits memory to this much: the kernel writes a number near 2^63 for "no limit".
_NO_LIMIT = 1 << 60
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# torch takes seconds to import and may hang on a driver: it does so in a process that can be ended.
_LIST_DEVICES = """
import json, torch
devices = []
for index in range(torch.cuda.device_count()):
    facts = torch.cuda.get_device_properties(index)
    devices.append({"kind": "cuda", "name": facts.name, "memory_bytes": facts.total_memory})
if torch.backends.mps.is_available():
    devices.append({"kind": "mps", "name": "Apple GPU", "memory_bytes": None})
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "devices": devices}))
"""


def check_processors() -> list[Finding]:
    """Say how many processors and how much memory this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = _read_memory()
    text = f"{count} processor{'' if count == 1 else 's'}, {format_size(memory)} of memory"
    details = {"processors": count, "memory_bytes": memory}
    if memory >= _FEW_BYTES:
        return [Finding("machine", "ok", text, details=details)]
    todo = "ask lorry plan what a task takes before it is run"
    return [Finding("machine", "warning", f"{text}; few bases fit", todo, details)]


def check_devices(environment: Mapping[str, str], seconds: float) -> list[Finding]:
    """Say which accelerators torch finds."""
    if importlib.util.find_spec("torch") is None:
        return [Finding("accelerators", "ok", "torch is not installed", "pip install 'lorry[train]'")]
    try:
        answer = subprocess.run(  # noqa: S603 -- this very Python
            [sys.executable, "-P", "-c", _LIST_DEVICES],
            capture_output=True,
            text=True,
            env=dict(environment),
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        todo = "look at the driver: nvidia-smi"
        return [Finding("accelerators", "failure", f"torch does not start within {seconds:g} s", todo)]
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        todo = "install it again: pip install --force-reinstall torch"
        return [Finding("accelerators", "failure", f"torch cannot be imported: {last}", todo)]
    facts = json.loads(answer.stdout.splitlines()[-1])
    names = [
        f"{device['name']}" + (f" ({format_size(device['memory_bytes'])})" if device["memory_bytes"] else "")
        for device in facts["devices"]
    ]
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "no CUDA"
    text = f"{', '.join(names) or 'none, trainings run on the processors'}; torch {facts['torch']}, {build}"
    return [Finding("accelerators", "ok", text, details=facts)]


def check_containers(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Say whether containers can be run here; only ``--runner docker`` needs them."""
    subject, only = "containers", "only --runner docker needs one"
    missing = [
        Finding(
            subject,
            "ok",
            f"no engine answers; {only}",
            "start Docker or podman's service, and set DOCKER_HOST",
        )
    ]
    if importlib.util.find_spec("docker") is None:
        text = f"the library docker is not installed; {only}"
        return [Finding(subject, "ok", text, "pip install 'lorry[pipelines]'")]
    address = environment.get("DOCKER_HOST") or _DEFAULT_ENGINE
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).exists():
        return missing
    import docker
    from docker.errors import DockerException

    try:
        with contextlib.closing(docker.from_env(timeout=_ENGINE_SECONDS)) as client:
            facts = client.version()
            has = {image.name: bool(client.images.list(name=image.name)) for image in choose_images(settings)}
    except DockerException:
        return missing
    parts = [part.get("Name", "") for part in facts.get("Components", ())]
    name = "podman" if any("podman" in part.lower() for part in parts) else "Docker"
    images = ", ".join(f"{image} is {'here' if is_here else 'not here'}" for image, is_here in has.items())
    details = {
        "engine": name,
        "version": facts.get("Version"),
        "image": settings.image,
        "has_image": has[settings.image],
        "images": has,
    }
    return [Finding(subject, "ok", f"{name} {facts.get('Version')}; {images}", details=details)]


def check_home(settings: Settings) -> Sequence[Finding]:
    """Say whether LORRY_HOME can be written, and how much room there is."""
    home = settings.home
    present = next(path for path in (home, *home.parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        return [
            Finding("home", "failure", f"{home} cannot be written", "correct its rights, or set LORRY_HOME")
        ]
    return [check_disk("home", home)]


def _read_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    for path in _MEMORY_LIMITS:
        # "max" where there is no limit, and no file where there are no control groups.
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text("utf-8")))
    return min(limit for limit in limits if limit < _NO_LIMIT)
