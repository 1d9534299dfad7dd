"""What a run directory tells: tables and figures. Reads files, never a live run."""
