"""Checkpoints on disk (``checkpoint_files``), in a store, and their uploads while training goes on."""
