"""The container image of each step of the graph."""

from collections.abc import Iterator
from dataclasses import dataclass

from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_registry.settings import Settings

SLIM_STEPS = ("prepare_data", "gate", "verdict", "report")
"""The steps that load no model, no matter what happens.

Registration is not among them: when the champion has changed meanwhile, it judges the candidate against the
new one.
"""


@dataclass(frozen=True, slots=True)
class Image:
    """An image, and who named it.

    Attributes:
        name: Its name, as an engine takes it.
        origin: The setting or the field of the profile that it is from.
    """

    name: str
    origin: str


@dataclass(frozen=True, slots=True)
class StepImages:
    """The images of a graph.

    Attributes:
        train: The one in which every step can run.
        slim: The one of the steps that load no model; it may be the same.
    """

    train: Image
    slim: Image

    def find(self, step: str) -> str:
        """Return the name of the image that a step runs in."""
        return self.slim.name if step in SLIM_STEPS else self.train.name

    def __iter__(self) -> Iterator[Image]:
        """Yield each image once."""
        yield self.train
        if self.slim.name != self.train.name:
            yield self.slim


def choose_images(settings: Settings, profile: ClusterProfile | None = None) -> StepImages:
    """Return the images that a profile names, or else those of the settings.

    They are never mixed: a slim image beside another one's training image would be of another version.

    Args:
        settings: The settings of this machine.
        profile: The cluster's profile; None: the graph is for this machine.
    """
    if profile is not None and profile.images is not None:
        train = Image(profile.images.train, "profile: images.train")
        slim = profile.images.slim
        return StepImages(train, Image(slim, "profile: images.slim") if slim else train)
    train = Image(settings.image, "LORRY_IMAGE")
    return StepImages(train, Image(settings.slim_image, "LORRY_SLIM_IMAGE") if settings.slim_image else train)
