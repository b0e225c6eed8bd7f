"""The exit step: a report of every task of a run."""
