#!/usr/bin/env python
"""Export the network of a run: `layer-tying export`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("export", prog=sys.argv[0]))
