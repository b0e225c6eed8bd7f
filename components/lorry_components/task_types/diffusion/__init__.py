"""Tasks whose answer is an image."""
