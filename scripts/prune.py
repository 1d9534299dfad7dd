#!/usr/bin/env python
"""Prune the networks of runs: `layer-tying prune`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("prune", prog=sys.argv[0]))
