"""The verdict: whether the run as a whole succeeded."""
