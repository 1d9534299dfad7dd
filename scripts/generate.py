#!/usr/bin/env python
"""Let the network of a run continue a text: `layer-tying generate`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("generate", prog=sys.argv[0]))
