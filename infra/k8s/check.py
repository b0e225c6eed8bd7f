#!/usr/bin/env python3
"""Holds what kustomize renders against Lorry's policies, before it reaches a cluster.

    kubectl kustomize my-cluster | python infra/k8s/check.py -

It needs PyYAML alone. Exit codes: 0 sound, 1 faults found and listed, 2 not readable as objects.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cluster_policies import Needs, check_objects

NEEDS = Path(__file__).with_name("needs.yaml")


def read_needs(path: Path) -> Needs:
    """Read what objects may refer to although it is not rendered; ValueError if the file is not formed so."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Needs(dict(content["secrets"]), dict(content["configMaps"]), frozenset(content["podLabels"]))
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must have secrets, configMaps and podLabels, as {NEEDS} has: {error}"
        ) from error


def read_objects(text: str) -> list[dict[str, Any]]:
    """Read the objects of a YAML stream; ValueError if it is none, or holds none."""
    try:
        documents = [item for item in yaml.safe_load_all(text) if item is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"this is not YAML: {error}") from error
    objects: list[dict[str, Any]] = []
    for number, item in enumerate(documents, start=1):
        if not isinstance(item, dict) or not {"apiVersion", "kind", "metadata"} <= item.keys():
            raise ValueError(f"document {number} is no Kubernetes object")
        objects.append(item)
    if not objects:
        raise ValueError("there is no object in it: was kustomize's output empty?")
    return objects


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rendered", help="what `kubectl kustomize` wrote; - reads standard input")
    parser.add_argument(
        "--needs", type=Path, default=NEEDS, help="what you make yourself (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        text = (
            sys.stdin.read()
            if options.rendered == "-"
            else Path(options.rendered).read_text(encoding="utf-8")
        )
        objects, needs = read_objects(text), read_needs(options.needs)
    except (OSError, ValueError) as error:
        print(f"{options.rendered}: {error}", file=sys.stderr)
        return 2
    try:
        faults = check_objects(objects, needs)
    except (AttributeError, KeyError, TypeError) as error:
        # A cluster would refuse it with the field's name; the policies only look at what a cluster accepts.
        todo = "see what `kubectl apply --dry-run=server` says of it"
        print(
            f"{options.rendered}: an object is not formed as Kubernetes expects ({error!r}): {todo}",
            file=sys.stderr,
        )
        return 2
    for fault in faults:
        print(fault)
    print(f"{len(objects)} objects, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
