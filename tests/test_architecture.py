"""The house plan holds: imports go down only, the front door stays light."""

import ast
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# Ground floor first; a module may import from its own floor and from those before it.
FLOORS = [
    ["tying_env.partition", "tying_env.seeding", "tying_env.plugins", "tying_env.files"],
    ["tying_env.kinds"],
    ["tying_env.config"],
    ["tying_env.differences", "tying_env.rule", "tying_env.json_lines", "tying_env.archives"],
    ["tying_env"],  # its __init__: registration
    ["tying_env.references", "tying_env.distributed", "tying_env.forking", "tying_env.named_tensors"],
    ["tying_env.slots", "tying_env.own_forward", "tying_env.redrawing", "tying_env.merging"],
    ["tying_env.ambient", "tying_env.left_behind"],
    ["tying_env.replication"],
    ["tying_env.tied_blocks", "tying_env.data", "tying_env.render", "tying_env.environment"],
    ["tying_env.scored", "tying_env.budget"],
    ["tying_env.synthetic", "tying_env.table"],
    ["tying_env.primary"],
    ["tying_env.decision"],
    ["tying_env.episode", "tying_env.episode_state"],
    ["tying_env.training_run", "tying_env.reporting"],
    ["tying_env.running"],
    ["tying_env.saving"],
    ["tying_env.env"],
    ["tying_env.vector"],
    ["tying_env.wrappers"],
    ["tying_env.runs"],
    ["tying_env.export", "tying_env.downstream"],
    ["tying_env.compression", "tying_env.alignment"],
    ["tying_env.reports"],
    # agents/: settings and doors first
    ["tying_agents.settings", "tying_agents.by_trial"],
    ["tying_agents.controllers"],
    ["tying_agents.registry"],
    ["tying_agents.run_config", "tying_agents.stopping"],
    ["tying_agents.none_in_toml", "tying_agents.config_files"],
    ["tying_agents.held"],
    ["tying_agents.callbacks", "tying_agents.foreign", "tying_agents.foreign_wrappers", "tying_agents.loop"],
    ["tying_agents.running", "tying_agents.sb3", "tying_agents.trackers"],
    ["tying_agents"],  # its __init__: what strangers need
    ["tying_agents.control"],
    ["tying_agents.many", "tying_agents.downstream", "tying_agents.reproducing", "tying_agents.benchmarks"],
    ["tying_agents.compressing"],
    ["tying_agents.contest", "tying_agents.studies", "tying_agents.tabulating", "tying_agents.findings"],
    ["tying_agents.pretraining"],
    ["tying_agents.smallest"],
    ["tying_agents.commands"],
    ["scripts", "tying_env.__main__"],
]
SOURCES = {"tying_env": ROOT, "tying_agents": ROOT / "agents", "scripts": ROOT}
MODULES = sorted(path for name, source in SOURCES.items() for path in (source / name).rglob("*.py"))


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT / "agents" if path.is_relative_to(ROOT / "agents") else ROOT)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    found = [
        (len(room), level)
        for level, rooms in enumerate(FLOORS)
        for room in rooms
        if module == room or (room not in ("tying_env", "tying_agents") and module.startswith(f"{room}."))
    ]
    assert found, f"{module} has no floor: add it to the house plan"
    return max(found)[1]


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module's tree, read once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            # `from tying_env import partition` imports a room, `from tying_env import EnvConfig` the hall
            for alias in node.names:
                room = f"{node.module}.{alias.name}"
                file = SOURCES.get(room.split(".")[0], ROOT) / Path(*room.split("."))
                names.add(room if file.with_suffix(".py").exists() or file.is_dir() else node.module)
    return {name for name in names if name.split(".")[0] in (*SOURCES, "tests")}


def test_imports_go_down_only() -> None:
    upward = {path: [name for name in imports(path) if floor(name) > floor(module_name(path))] for path in MODULES}
    assert {module_name(path): names for path, names in upward.items() if names} == {}


def test_the_reader_of_imports_sees_them() -> None:
    assert "tying_env.partition" in imports(ROOT / "tying_env" / "env.py")
    assert floor("tying_env.primary.kernels.head") > floor("tying_env.partition")


def test_importing_the_package_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, gymnasium, tying_env; gymnasium.spec('LayerTying-GPT2-v0'); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'tiktoken', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_environment_can_be_made_without_importing_the_package_first(tiny: dict[str, Any]) -> None:
    code = (
        "import sys, json, gymnasium; env = gymnasium.make('tying_env:LayerTying-GPT2-v0', **json.loads(sys.argv[1])); "
        "print(env.reset(seed=0)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(tiny)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0 0 0 0]"


# What runs code when it reads a file.
UNSAFE_OPTIONS = {("weights_only", False), ("allow_pickle", True), ("trust_remote_code", True)}
UNSAFE = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


def unsafe_loading(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the places that read pickles, or ask a library to."""
    found = []
    for node in nodes:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: import {m}" for m in modules if m.split(".")[0] in UNSAFE]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("torch.load", "joblib.load"):  # np.load refuses pickles unless it is asked
                found.append(f"{node.lineno}: {called}")
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in UNSAFE_OPTIONS:
                    found.append(f"{node.lineno}: {keyword.arg}={value}")
    return found


def test_no_module_reads_what_can_run_code() -> None:
    found = {module_name(path): unsafe_loading(nodes_of(path)) for path in MODULES}
    assert {name: places for name, places in found.items() if places} == {}


def test_the_reader_of_unsafe_loading_sees_it() -> None:
    lines = (
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(path)",
        "f(path, weights_only=False)",
        "g(path, allow_pickle=True)",
    )
    assert all(len(unsafe_loading(ast.walk(ast.parse(line)))) == 1 for line in lines)
    assert unsafe_loading(ast.walk(ast.parse("json.load(file)\nload_file(path)"))) == []


def global_generators(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the places that draw from, or seed, a generator that all share."""
    banned = {"manual_seed_all", "seed", "rand", "randn", "randint", "choice", "shuffle", "manual_seed"}
    found = []
    for node in nodes:
        if (
            isinstance(node, ast.Attribute)
            and node.attr in banned
            and isinstance(node.value, (ast.Name, ast.Attribute))
        ):
            of = ast.unparse(node.value)
            shared = f"{of}.".startswith(("np.random.", "numpy.random.", "random."))
            if shared or (of == "torch" and "seed" in node.attr):
                found.append(f"{node.lineno}: {of}.{node.attr}")
    return found


def test_no_module_uses_a_global_generator() -> None:
    found = {module_name(path): global_generators(nodes_of(path)) for path in MODULES}
    assert {name: places for name, places in found.items() if places} == {}


def test_the_reader_of_global_generators_sees_them() -> None:
    lines = ("np.random.seed(0)", "random.shuffle(x)", "torch.manual_seed(0)", "torch.seed()", "numpy.random.rand(2)")
    assert all(len(global_generators(ast.walk(ast.parse(line)))) == 1 for line in lines)
    fine = "np.random.default_rng(0)\ngenerator.manual_seed(0)\nrng.shuffle(x)\nself.random.choice(x)"
    assert global_generators(ast.walk(ast.parse(fine))) == []


def test_scripts_do_not_stand_in_for_packages_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "tabulate.py").write_text("WHOSE = 'a package that torch uses'")
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); script = sys.argv[1]; sys.argv = [script, '--help']\n"
        "try: runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import tabulate; print(tabulate.WHOSE)"
    )
    scripts = ROOT / "scripts"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'agents'}"}
    words = [sys.executable, "-c", code, str(scripts), str(scripts / "compare.py")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "a package that torch uses"
