"""Tasks whose answer is a text that the base writes."""
