"""Evaluation: an adapter folder and the test rows in, metrics with intervals and a comparison out."""
