#!/usr/bin/env python
"""Try controllers on tasks whose best tying is known: `layer-tying control`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("control", prog=sys.argv[0]))
