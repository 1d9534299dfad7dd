#!/usr/bin/env python
"""Reproduce a row of the paper's Table 1, in slices of a given time: `layer-tying reproduce`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("reproduce", prog=sys.argv[0]))
