"""What most commands import, and what their runs do: the server in tests/started.py has it before it forks."""

import gc

import joblib
import optuna
import transformers.models.gpt2.modeling_gpt2
from matplotlib.backends import backend_agg
from torch.utils import tensorboard
from tying_agents.commands import compare, reproduce, tabulate, tune
from tying_agents.running import runner

from tests.disk import leave_out_waiting
from tests.pictures import leave_out_pictures
from tying_env.reports import html

PRELOADED = (
    *(joblib, optuna, transformers.models.gpt2.modeling_gpt2, backend_agg, tensorboard),
    *(compare, reproduce, tabulate, tune, runner, html),
)

leave_out_pictures(setattr)
leave_out_waiting(setattr)
gc.freeze()  # a process that is forked neither goes through all this nor copies its pages
