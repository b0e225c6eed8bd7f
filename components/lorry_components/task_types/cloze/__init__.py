"""Tasks whose answer fills a gap in a sentence."""
