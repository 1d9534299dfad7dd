#!/usr/bin/env python
"""Let a DQN learn on the tying table: `layer-tying pretrain`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("pretrain", prog=sys.argv[0]))
