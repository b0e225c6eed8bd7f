"""Policies that every object that kustomize renders for Lorry must keep.

`check_objects` applies all of `POLICIES` to rendered objects: each is a pure function from `Rendered` to the
faults that it found. Nothing here reads a file or a cluster; `check.py` beside this package is the command.

- `rendered`: the objects, the pods that they make, and labels
- `pods`: what a pod may be and do
- `relations`: what objects have to do with each other
- `references`: what they refer to by name
"""

from collections.abc import Sequence

from cluster_policies.pods import (
    refuse_plain_secrets,
    refuse_privileges,
    refuse_root,
    require_digests,
    require_probes,
    require_read_only_root,
    require_resources,
    require_settings,
)
from cluster_policies.references import require_references
from cluster_policies.relations import (
    require_isolation,
    require_least_rights,
    require_matches,
    require_one_namespace,
    require_one_way_to_s3,
    require_safe_updates,
)
from cluster_policies.rendered import Fault, Needs, Object, Policy, Rendered

POLICIES: tuple[Policy, ...] = (
    require_settings,
    require_digests,
    refuse_root,
    refuse_privileges,
    require_read_only_root,
    require_resources,
    require_probes,
    refuse_plain_secrets,
    require_one_namespace,
    require_isolation,
    require_matches,
    require_references,
    require_least_rights,
    require_one_way_to_s3,
    require_safe_updates,
)

__all__ = ["POLICIES", "Fault", "Needs", "Object", "Policy", "Rendered", "check_objects"]


def check_objects(objects: Sequence[Object], needs: Needs) -> list[Fault]:
    """All faults of all objects, policy by policy."""
    rendered = Rendered(objects, needs)
    return [fault for policy in POLICIES for fault in policy(rendered)]
