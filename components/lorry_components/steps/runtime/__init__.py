"""What every step runs in: its arguments and environment, and the outcome that it leaves."""
