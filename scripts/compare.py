#!/usr/bin/env python
"""Compare agents over seeds: `layer-tying compare`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("compare", prog=sys.argv[0]))
