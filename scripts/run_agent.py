#!/usr/bin/env python
"""Train one network while one agent ties its layers: `layer-tying run`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("run", prog=sys.argv[0]))
