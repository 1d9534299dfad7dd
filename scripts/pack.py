#!/usr/bin/env python
"""Pack the network of a run into so many bytes: `layer-tying pack`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("pack", prog=sys.argv[0]))
