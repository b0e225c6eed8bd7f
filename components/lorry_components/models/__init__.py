"""The frozen base: every question about one is answered here.

::

    bases               where it is, whether it is whole, its fingerprint
    configuration       its ``config.json``, without its weights
    dimensions          its sizes: widths, depth, vocabulary, positions
    model_family       whether it is causal, bidirectional, or an encoder with a decoder
    blocks              where its blocks and its linear layers are; whether it is a UNet
    dropout_fields      what its configuration calls dropout
    pretrained          loading it under a head
    diffusers_models    loading the models of a pipeline
    quantization        what numbers in fewer bits need

Nothing is imported here, so that a base is looked up without torch.
"""

__all__ = [
    "bases",
    "blocks",
    "configuration",
    "diffusers_models",
    "dimensions",
    "dropout_fields",
    "model_family",
    "pretrained",
    "quantization",
]
