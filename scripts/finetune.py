#!/usr/bin/env python
"""Train the networks of runs on a task of GLUE: `layer-tying finetune`."""

import sys

from tying_agents.commands import start

if __name__ == "__main__":
    sys.exit(start("finetune", prog=sys.argv[0]))
