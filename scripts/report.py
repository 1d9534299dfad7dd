#!/usr/bin/env python
"""Make one HTML page of finished runs: `layer-tying report`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("report", prog=sys.argv[0]))
