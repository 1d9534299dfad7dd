"""`python -m tying_env COMMAND` is `layer-tying COMMAND`."""

import sys

from tying_agents.commands import main

if __name__ == "__main__":
    sys.exit(main(program="python -m tying_env"))
