"""The mounts in which pods find base models that tasks call by a logical name."""

from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_registry.settings import Settings

BASES_VARIABLE = "LORRY_BASES"
BASE_STEPS = ("prepare_data", "finetune", "evaluate", "register")
"""The steps that load a base or its tokenizer. Registration does when the champion changed meanwhile."""


def place_bases(profile: ClusterProfile, settings: Settings) -> ClusterProfile:
    """Return a profile whose environment tells steps where bases are, if there is a place that pods reach.

    The profile comes first, since it is the cluster's own: what its environment says, then its claim. Of the
    settings of this machine only an address on S3 means the same in a pod.
    """
    if profile.bases is not None:
        address = profile.bases.path
    else:
        address = settings.bases if settings.base_place.is_remote else ""
    if not address or BASES_VARIABLE in profile.environment:
        return profile
    return profile.model_copy(update={"environment": profile.environment | {BASES_VARIABLE: address}})
