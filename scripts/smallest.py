#!/usr/bin/env python
"""Find the smallest network that is as good as conventional training: `layer-tying smallest`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("smallest", prog=sys.argv[0]))
