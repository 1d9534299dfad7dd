"""Many runs: plans, workers, comparisons."""
