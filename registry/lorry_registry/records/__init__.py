"""Records beside an adapter: its training, its rows, its measured inputs."""
