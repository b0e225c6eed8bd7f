"""The frozen base: where it is, its fingerprint, its configuration, and its blocks."""
