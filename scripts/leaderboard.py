#!/usr/bin/env python
"""Every agent on the tying table, many times, as a page: `layer-tying leaderboard`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("leaderboard", prog=sys.argv[0]))
