"""Handle files on this machine: locks, atomic writes, digests and what was hashed before."""
