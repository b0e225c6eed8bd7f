"""The family of task types over a UNet of diffusers' and the frozen parts around it.

::

    base                what they have in common: images beside a table, the pipeline, training
    latent_diffusion    the parts around the UNet, noise, its prediction, and drawing
    image_arrays        images as text and as arrays
    image_generation    an image for a prompt
"""

from lorry_components.task_types.diffusion.base import DiffusionTaskType
from lorry_components.task_types.diffusion.image_generation import ImageGeneration

__all__ = ["DiffusionTaskType", "ImageGeneration"]
