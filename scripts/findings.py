#!/usr/bin/env python
"""What the tying table says, as a page with figures: `layer-tying findings`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("findings", prog=sys.argv[0]))
