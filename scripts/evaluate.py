#!/usr/bin/env python
"""Measure the network of a run on a split: `layer-tying evaluate`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("evaluate", prog=sys.argv[0]))
