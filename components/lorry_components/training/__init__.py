"""Training: one adapted base, its rows, and weights at the end that depend on the recipe alone.

The fine-tuning step calls these in turn:

- ``setup`` loads the base, adapts it, and chooses what depends on the machine: ``precision`` (the number
  format and the attention), ``optimizers`` (which ones there are, and whether they work here),
  ``quick_lora`` (LoRA's layers, fast on processors).
- ``number_head`` lets a head that predicts numbers learn them in units of their spread.
- ``assembly`` encodes the rows and builds the trainer, with its ``arguments`` and ``callbacks``; ``packing``
  joins short sequences into one row, where a task asks for it.
- ``starting_adapter`` lets a training begin with the champion's adapter, where it fits.
- ``resumption`` trains to the end, from the last of the ``checkpoints`` if there is one.
- ``stored_checkpoints`` keeps them in a store, for a step that starts on another machine;
  ``checkpoint_uploads`` does so while training goes on.
- ``training_summary`` is what the later steps learn of it.

Inside, ``trainer`` is transformers' Trainer with few changes: batches come from the ``sampler``, a pure
function of seed and epoch; ``supervised_logits`` computes a causal language model's outputs only where they
count; ``activation_cache`` computes frozen lower layers once instead of once an epoch.

Over several GPUs, ``distributed`` runs the step in a process for each, and ``sharding`` divides the frozen
weights among them.

A training that was killed and resumed ends with the same bytes as one that was left alone: code that draws
random numbers here is seeded, saved in checkpoints, or kept from the training's own random state.
"""
