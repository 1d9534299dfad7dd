#!/usr/bin/env python
"""Measure what this package costs and what tying saves: `layer-tying benchmark`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("benchmark", prog=sys.argv[0]))
