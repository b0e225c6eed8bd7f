"""Running comparisons and studies."""
