#!/usr/bin/env python
"""Run the paper's ablations (Table 4) over seeds: `layer-tying ablations`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("ablations", prog=sys.argv[0]))
