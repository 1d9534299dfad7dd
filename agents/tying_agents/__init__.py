"""Controllers of the layer tying environment, and the runner that drives them."""
