"""The surroundings of every step: its arguments and environment, and the outcome that it leaves."""
