"""Training: one adapted base, its rows, and weights at the end that depend on the recipe alone.

The fine-tuning step calls these in turn:

- ``setup`` loads the base, adapts it, and chooses what depends on the machine and the rows.
- ``probe`` fits a linear model to the frozen base's features: the baseline, and the first weights of a head.
- ``assembly`` encodes the rows and builds the trainer, with its ``callbacks``.
- ``resumption`` trains to the end, from the last of the ``checkpoints`` if there is one.
- ``training_summary`` is what the later steps learn of it.

Inside, ``trainer`` is transformers' Trainer with few changes, and ``kernels`` are what makes its steps cheap.
Over several GPUs, ``distributed`` runs the step in a process for each.

A training that was killed and resumed ends with the same bytes as one that was left alone: code that draws
random numbers here is seeded, saved in checkpoints, or kept from the training's own random state.
"""
