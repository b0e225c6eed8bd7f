"""The exit step: what became of every task of a run."""
