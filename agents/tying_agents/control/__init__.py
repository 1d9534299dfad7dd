"""The positive control: what each controller makes of tasks whose best tying is known, after so many decisions."""
