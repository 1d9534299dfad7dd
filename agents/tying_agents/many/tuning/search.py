"""What is searched: `NAME: SPEC` read, checked against the settings of a run, and put into them.

    learning-rate: log 1e-4..1e-2      between two numbers, on a logarithmic scale
    epsilon-floor: 0..0.3              between two numbers
    n-layer: 4..12 step 4              in steps; whole numbers have steps of 1 anyway
    double-q: true | false             one of several

No Optuna here: wrong searches are refused at once.
"""

import dataclasses
import difflib
import itertools
import math
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from tying_agents.config_files import FREE
from tying_agents.run_config import RunConfig
from tying_env.config import EnvConfig

# A sweep decides these itself, or they do not decide what the validation split says.
_NOT_SEARCHED = {"seed", "label", "measure_test", "test_windows", "agent", "env", "controller"}
_NOT_SEARCHED |= {name.removeprefix("env.") for name in FREE}
# Combinations of ends and choices that are tried in vain before a value is said to be refused.
_MOST_PROBES = 2000

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Search:
    """One setting and where to look for its best value.

    Attributes:
        name: of the field, "learning_rate".
        group: where it is: "env", "controller", or "" for the run itself.
        text: how the user wrote it, one way for equal searches.
        whole: whether its numbers are whole ones.
        low: the least value, for a range.
        high: the largest value, for a range.
        log: whether the range is searched on a logarithmic scale.
        step: distance of neighbours; None for any number in the range.
        choices: the values, for a choice; else empty.
    """

    name: str
    group: str
    text: str
    whole: bool = False
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def option(self) -> str:
        """The name on the command line, without its dashes in front."""
        return self.name.replace("_", "-")

    def stored(self) -> tuple[Scalar, ...]:
        """Return the choices as the storage keeps them: numbers, words and none as they are, all else as text."""
        return tuple(_stored(value) for value in self.choices)

    def value(self, stored: Any) -> Any:
        """Return the setting's value for what the storage has."""
        if self.choices:
            return self.choices[self.stored().index(stored)]
        return int(stored) if self.whole else float(stored)

    def probes(self) -> tuple[Any, ...]:
        """Return the values by which the search is checked: the choices, or the two ends."""
        return self.choices or (self.value(self.low), self.value(self.high))

    def grid(self) -> tuple[Scalar, ...] | None:
        """Return all values as the storage keeps them; None if there are too many to count."""
        if self.choices:
            return self.stored()
        if self.step is None or self.log:
            return None
        count = round((self.high - self.low) / self.step) + 1
        return tuple(self.value(self.low + i * self.step) for i in range(count))


def parse_searches(texts: Sequence[str], base: RunConfig) -> tuple[Search, ...]:
    """Return the searches that the texts describe.

    Args:
        texts: "NAME: SPEC" each.
        base: the settings that are searched around; whose agent's settings can be searched.

    Raises:
        ValueError: there are no searches, a name is not a setting (the nearest is offered), a range is not valid, or
            the settings refuse a value whatever the others are.
    """
    if not texts:
        raise ValueError('nothing is searched: say what, such as --search "learning-rate: log 1e-4..1e-2"')
    searches = [_parse(text, base) for text in texts]
    names = [search.name for search in searches]
    for i, name in enumerate(names):
        if name in names[:i]:
            first = searches[names.index(name)].text
            raise ValueError(f"{searches[i].option} is searched twice: {first!r} and {searches[i].text!r}")
    _refuse_impossible_values(searches, base)
    return tuple(searches)


def with_values(base: RunConfig, values: Sequence[tuple[Search, Any]]) -> RunConfig:
    """Return the settings with these values in their places.

    Raises:
        ValueError, TypeError: the settings refuse them.
    """
    groups: dict[str, dict[str, Any]] = {"": {}, "env": {}, "controller": {}}
    for search, value in values:
        groups[search.group][search.name] = value
    own = groups.pop("")
    for group, changes in groups.items():
        if changes:
            own[group] = dataclasses.replace(getattr(base, group), **changes)
    return dataclasses.replace(base, **own)


def check_judged(config: RunConfig) -> None:
    """Check that a run measures what trials are judged by.

    Raises:
        ValueError: it does not.
    """
    if config.env.validate_every < 1:
        raise ValueError(
            "validate_every must be at least 1: trials are judged by validation perplexity, got "
            f"{config.env.validate_every}"
        )


def possible(searches: Sequence[Search], base: RunConfig) -> RunConfig:
    """Return settings that the searches can lead to.

    Raises:
        ValueError: the settings refuse every combination that was tried.
    """
    return _first_accepted(searches, base)


def _parse(text: str, base: RunConfig) -> Search:
    name, colon, spec = (part.strip() for part in text.partition(":"))
    if not (colon and name and spec):
        raise ValueError(f'a search must read "NAME: SPEC", such as "learning-rate: log 1e-4..1e-2", got {text!r}')
    group, field, kinds = _find(name, base)
    option = field.replace("_", "-")
    if "|" in spec or ".." not in spec:
        words = [word.strip() for word in spec.split("|")]
        if len(words) < 2:
            raise ValueError(
                f'{option}: a search must be a range, "LOW..HIGH", or a choice, "a | b", got {spec!r}; '
                f"one value is no search: write --{option} {spec}"
            )
        choices = tuple(_read(word, kinds, option) for word in words)
        if twice := [word for i, word in enumerate(words) if choices[i] in choices[:i]]:
            raise ValueError(f"{option}: choices must be different ones, got {twice[0]!r} twice")
        return Search(field, group, f"{option}: {' | '.join(words)}", choices=choices)
    return _parse_range(field, group, spec, kinds)


def _parse_range(field: str, group: str, spec: str, kinds: tuple[Any, ...]) -> Search:
    option = field.replace("_", "-")
    found = re.fullmatch(r"(?P<log>log\s+)?(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+)(\s+step\s+(?P<step>\S+))?", spec)
    if found is None:
        raise ValueError(
            f'{option}: a range must read "LOW..HIGH", "log LOW..HIGH" or "LOW..HIGH step S", got {spec!r}'
        )
    if not {int, float} & set(kinds):
        raise ValueError(f'{option} is no number and has no range; write its values, "a | b", got {spec!r}')
    whole, log = float not in kinds, found["log"] is not None
    low, high = (_number(found[end], whole, f"{option}: {end}") for end in ("low", "high"))
    step: float | None = 1.0 if whole else None
    if found["step"]:
        step = _number(found["step"], whole, f"{option}: step")
        if log:
            raise ValueError(f"{option}: a logarithmic range has no step, got {spec!r}")
        if not step > 0:
            raise ValueError(f"{option}: step must be above 0, got {found['step']}")
    if not low < high:
        raise ValueError(f"{option}: the range must go up, from LOW to a larger HIGH, got {spec!r}")
    if log and not low > 0:
        raise ValueError(f"{option}: a logarithmic range must begin above 0, got {found['low']}")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-6:
        last = low + step * math.floor((high - low) / step)
        raise ValueError(f"{option}: HIGH must be LOW and a number of steps: {last:g} or {last + step:g}, got {high:g}")
    words = [f"{found['low']}..{found['high']}", *([f"step {found['step']}"] if found["step"] else [])]
    text = f"{option}: {'log ' if log else ''}{' '.join(words)}"
    return Search(field, group, text, whole, float(low), float(high), log, None if step is None else float(step))


def _find(name: str, base: RunConfig) -> tuple[str, str, tuple[Any, ...]]:
    """Return where a setting is, its field, and the types it takes.

    Raises:
        ValueError: there is none, or it cannot be searched.
    """
    field = name.removeprefix("--").replace("-", "_")
    if field in _NOT_SEARCHED:
        hint = "compare agents with `layer-tying compare`" if field == "agent" else "give it as an option"
        raise ValueError(f"{name} cannot be searched: it is the same in all trials ({hint})")
    kinds: dict[str, tuple[str, Any]] = {}
    own: Any = type(base.controller)
    for group, settings in (("", RunConfig), ("env", EnvConfig), ("controller", own)):
        hints = get_type_hints(settings)
        fields = [each.name for each in dataclasses.fields(settings)]
        kinds |= {each: (group, hints[each]) for each in fields if each not in _NOT_SEARCHED}
    if field not in kinds:
        near = difflib.get_close_matches(field, kinds, 1)
        shown = [each.replace("_", "-") for each in (near or sorted(kinds))]
        hint = f"did you mean {shown[0]}?" if near else f"known: {', '.join(shown)}"
        raise ValueError(f"there is no setting {name!r} of the agent {base.agent!r} to search; {hint}")
    group, kind = kinds[field]
    return group, field, get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _read(word: str, kinds: tuple[Any, ...], option: str) -> Any:
    """Return a choice as a value of the field's type; whether the field takes it, its settings say.

    Raises:
        ValueError: it is not a value of that type.
    """
    if type(None) in kinds and word.lower() == "none":
        return None
    for kind in kinds:
        if kind is bool:
            if word.lower() not in ("true", "false"):
                raise ValueError(f"{option} must be true or false, got {word!r}")
            return word.lower() == "true"
        if kind in (int, float):
            return _number(word, float not in kinds, option)
        if kind is Path:
            return Path(word)
        if get_origin(kind) is tuple:  # several names, as --agents of `layer-tying compare` takes them
            return () if word.lower() == "none" else tuple(word.split("+"))
    return word


def _number(text: str, whole: bool, what: str) -> float:
    expected = "a whole number" if whole else "a finite number"
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        raise ValueError(f"{what} must be {expected}, got {text!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} must be {expected}, got {text!r}")
    return number


def _stored(value: Any) -> Scalar:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return "+".join(value) or "none" if isinstance(value, tuple) else str(value)


def _refuse_impossible_values(searches: Sequence[Search], base: RunConfig) -> None:
    """Refuse a value that the settings take in no combination with those of the other searches.

    Raises:
        ValueError: there is one; the message is that of the settings.
    """
    for search in searches:
        others = [other for other in searches if other is not search]
        for value in search.probes():
            fixed = dataclasses.replace(search, choices=(value,))
            try:
                _first_accepted([fixed, *others], base)
            except ValueError as error:
                raise ValueError(f"{search.text!r} cannot be searched: {error}") from error


def _first_accepted(searches: Sequence[Search], base: RunConfig) -> RunConfig:
    """Return the settings with the first combination of ends and choices that they take.

    Raises:
        ValueError: none was found; the message says why the first one was refused.
    """
    refused: ValueError | TypeError | None = None
    every = itertools.product(*(search.probes() for search in searches))
    for combination in itertools.islice(every, _MOST_PROBES):
        try:
            config = with_values(base, list(zip(searches, combination, strict=True)))
            check_judged(config)
            return config
        except (ValueError, TypeError) as error:
            refused = refused or error
    raise ValueError(str(refused)) from refused
