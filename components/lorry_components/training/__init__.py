"""The trainer and what makes it fast, small and resumable."""
