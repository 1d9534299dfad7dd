"""What a training step computes that torch or transformers compute slower, or not from a generator of their own."""
