"""What can be known to be wrong with a run before torch, its data and its network are there, which takes seconds."""

from tying_agents.callbacks import load_callbacks
from tying_agents.controllers.base import Context
from tying_agents.registry import find_agent
from tying_agents.run_config import RunConfig
from tying_agents.settings import DQNConfig, SearchConfig
from tying_env.config.network import is_own
from tying_env.data.corpus import check_source
from tying_env.data.images import check_images
from tying_env.data.speech import check_speech
from tying_env.plugins import is_import_string, load_object


def check_early(config: RunConfig) -> None:
    """Refuse a run that cannot be made, as far as that can be known at once.

    Raises:
        ValueError, TypeError, OSError, ImportError, tying_env.plugins.ForeignCodeError: the data are not there; or the
            agent, or code of the user's own, cannot be had.
    """
    check_dataset(config.env.model, config.env.dataset)
    load_callbacks(config.callbacks)
    for name in (*config.rewards, *config.wrappers):
        if is_import_string(name):
            load_object(name, "a gymnasium.Wrapper class, or a function from an environment to a wrapped one")
    agent = find_agent(config.agent)
    if config.env.init_from is not None or is_own(config.env.model):  # the number of layers is not known yet
        return
    if agent.light:
        agent.make(config.controller, Context(config.env.n_units, config.seed, config.env.k, of_kinds=config.env.kinds))
    elif agent.settings in (DQNConfig, SearchConfig) and not len(config.env.kinds.open):
        raise ValueError(f"a controller needs at least 2 layers to have a choice, got {config.env.n_units}")


def check_dataset(model: str, dataset: str) -> None:
    """Refuse data that are not there; those of the hub are not looked for.

    Args:
        model: which network reads them. One of the user's own may bring its data itself.
        dataset: their name or path.

    Raises:
        ValueError, FileNotFoundError: they are not.
    """
    if not is_own(model):
        {"vit": check_images, "speech": check_speech}.get(model, check_source)(dataset)
