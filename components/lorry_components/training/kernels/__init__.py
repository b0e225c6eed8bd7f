"""Less computation for the same gradients.

``fused_lora`` has LoRA's layers in fewer passes over memory, ``activation_cache`` computes frozen lower
layers once, ``supervised_logits`` computes outputs only where the loss counts them, ``packing`` joins short
sequences, and the ``sampler`` puts those of like length into one batch.
"""
