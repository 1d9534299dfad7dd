"""Makes the tying table: trains every tying of a few layers, at several seeds and rates (`layer-tying tabulate`)."""
