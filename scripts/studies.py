#!/usr/bin/env python
"""Make the studies of docs/results: `layer-tying studies`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("studies", prog=sys.argv[0]))
