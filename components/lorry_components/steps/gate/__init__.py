"""The gate: one decision, with its reasons."""
