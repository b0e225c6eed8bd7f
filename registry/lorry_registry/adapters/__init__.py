"""Keep adapters in a store and on this machine, each verified byte by byte before it is used."""
