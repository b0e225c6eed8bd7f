"""What the tests of the cluster's objects share."""

import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fixtures.clusters import K8S, Objects, Render, render_choice


@pytest.fixture(scope="session")
def policies() -> Iterator[Any]:
    """The package of policies, imported as check.py imports it."""
    sys.path.insert(0, str(K8S))
    try:
        import cluster_policies

        yield cluster_policies
    finally:
        sys.path.remove(str(K8S))


@pytest.fixture(scope="session")
def needs(policies: Any) -> Any:
    content = yaml.safe_load((K8S / "needs.yaml").read_text(encoding="utf-8"))
    return policies.Needs(content["secrets"], content["configMaps"], frozenset(content["podLabels"]))


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Renders an overlay with components, with or without what a user decides."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (Debian: kubernetes-client)")

    def render_here(*arguments: Any, **options: Any) -> Objects:
        return render_choice(tmp_path_factory.mktemp("cluster"), *arguments, **options)

    return render_here


@pytest.fixture(scope="session")
def everything(render: Render) -> Objects:
    """All that can be had at once, with a database in the cluster and keys for S3."""
    return render("gpu", ["database-upgrade", "gc", "kueue", "monitoring", "priority", "serve", "trainer"])
