"""The paper's Table 1, in slices of a given time."""
