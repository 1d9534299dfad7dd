#!/usr/bin/env python
"""Train every tying of six layers, the rows of the tying table: `layer-tying tabulate`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("tabulate", prog=sys.argv[0]))
