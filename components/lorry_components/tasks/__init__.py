"""A task as a whole: checked against its base, and compared with the adapters that exist."""
