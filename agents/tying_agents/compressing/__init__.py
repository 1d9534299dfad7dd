"""Networks of runs made smaller, side by side."""
