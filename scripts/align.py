#!/usr/bin/env python
"""Measure how far layers are aligned: `layer-tying align`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("align", prog=sys.argv[0]))
