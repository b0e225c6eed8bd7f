"""Read and write addresses, sizes and names as text, and take secrets out of messages."""
