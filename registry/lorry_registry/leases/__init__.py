"""Leases: on content, against its collection, and on the work of retraining a task."""
