#!/usr/bin/env python
"""Search settings with Optuna: `layer-tying tune`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("tune", prog=sys.argv[0]))
