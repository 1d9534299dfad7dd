"""The studies of docs/results: what they ask, what would answer it, and how they are made (`layer-tying studies`)."""
