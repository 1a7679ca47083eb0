"""How the settings are read: on the command line, else in the environment, else the default; and the page of them."""

import argparse
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, fields
from math import inf
from typing import Any, NoReturn, get_type_hints

from server.settings import Option, Settings

PREFIX = "TIDEGATE_"
_GROUPS = {  # by the first setting of each
    "models": "what is served, and where",
    "tls_cert": "who may connect",
    "load_seconds": "loading model files",
    "max_batch": "batching",
    "max_sequences": "limits",
    "store": "checkpoints and the store",
    "grace_seconds": "stopping",
    "log_level": "logs, metrics, observers",
}
_TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
_EXPECTED = {bool: "yes or no", int: "a whole number", float: "a number"}
_TYPES = get_type_hints(Settings)
_LAST_PORT = 65_535


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings for a command line. Exits with status 2 and a sentence if one of them is wrong."""
    parser = _parser()
    return settle(parser, vars(parser.parse_args(list(arguments))), environment)


def settle(parser: argparse.ArgumentParser, given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings for the options that a parser took, None where not given; those that it knows not keep defaults."""
    values = {}
    for f in fields(Settings):
        name = _variable(f)
        if f.name not in given:
            continue
        if given[f.name] is not None:
            values[f.name] = given[f.name]
        elif name in environment:
            values[f.name] = _from_environment(parser, f, name, environment[name])
    settings = Settings(**values)
    _check(parser, settings)
    return settings


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all options above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m server",
        usage="%(prog)s [OPTION VALUE]... | check ... | doctor ... | token ... | store ... | settings",
        description="Serves the recurrent ONNX models of a folder as gRPC streams.",
        epilog=f"Each option can also be set in the environment: --max-batch is {PREFIX}MAX_BATCH. Beside these, "
        "`python -m server check FILE` says what a model file holds and whether it will be served, "
        "`python -m server doctor` whether all that a server needs is as it should be, "
        "`python -m server token` makes the tokens of clients, `python -m server store` looks after a store while no "
        "server runs, and `python -m server settings` writes the page docs/settings.md.",
    )
    add_options(parser, [f.name for f in fields(Settings)])
    return parser


def add_options(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Adds the options of some settings, in their groups."""
    for title, group in _grouped().items():
        if wanted := [f for f in group if f.name in names]:
            section = parser.add_argument_group(title)
            for f in wanted:
                _add(section, f)


def main(arguments: Sequence[str]) -> int:
    """`python -m server settings`: writes the page."""
    Parser(prog="python -m server settings", description="Writes the page of all settings.").parse_args(list(arguments))
    print(page(), end="")
    return 0


def page() -> str:
    """All settings as a page in Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `python -m server settings`. Each is an option of `python -m server`, or a variable of the",
        "environment; the option goes before the variable. An option without a value is `yes` or `no` as a variable.",
    ]
    for title, group in _grouped().items():
        lines += [
            "",
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| option | variable | what it is | default |",
            "|---|---|---|---|",
        ]
        lines += [_row(f) for f in group]
    return "\n".join(lines) + "\n"


def _grouped() -> dict[str, list[Field[Any]]]:
    """The settings of each group, by its title."""
    groups, title = dict[str, list[Field[Any]]](), ""
    for f in fields(Settings):
        title = _GROUPS.get(f.name, title)
        groups.setdefault(title, []).append(f)
    return groups


def _add(section: argparse._ArgumentGroup, f: Field[Any]) -> None:
    option = _option(f)
    if _TYPES[f.name] is bool:
        section.add_argument(_flag(f), action="store_const", const=True, help=f"{option.text} (default: no)")
        return
    text = f"{option.text} (default: {option.shown or f.default})"
    section.add_argument(_flag(f), type=_reading(f), metavar=_placeholder(option), help=text.replace("%", "%%"))


def _reading(f: Field[Any]) -> Callable[[str], object]:
    """Makes a value of what the command line has."""

    def read(text: str) -> object:
        try:
            return _TYPES[f.name](text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}; expected {_EXPECTED[_TYPES[f.name]]}") from None

    return read


def _row(f: Field[Any]) -> str:
    option = _option(f)
    default = option.shown or ("no" if f.default is False else f"`{f.default}`")
    return f"| `{f'{_flag(f)} {_placeholder(option)}'.strip()}` | `{_variable(f)}` | {option.text} | {default} |"


def _option(f: Field[Any]) -> Option:
    option: Option = f.metadata["option"]
    return option


def _flag(f: Field[Any]) -> str:
    return f"--{f.name.replace('_', '-')}"


def _variable(f: Field[Any]) -> str:
    return PREFIX + f.name.upper()


def _placeholder(option: Option) -> str:
    return option.value if isinstance(option.value, str) else f"{{{','.join(option.value)}}}"


def _from_environment(parser: argparse.ArgumentParser, f: Field[Any], name: str, text: str) -> object:
    kind = _TYPES[f.name]
    try:
        return _TRUTHS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        parser.error(f"{name} is {text!r}; expected {_EXPECTED[kind]}")


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    for f in fields(Settings):
        if expected := _expected(_option(f), getattr(settings, f.name)):
            parser.error(f"{_flag(f)} is {getattr(settings, f.name)!r}; expected {expected}")
    if settings.workers > 1 and not settings.outlives:
        parser.error(
            f"--workers is {settings.workers}, but --store {settings.store} is of one process alone: no worker could "
            "go on with another's sequences; expected sqlite:FILE or valkey://HOST:PORT/DB"
        )
    if settings.host in ("", "unix:"):
        parser.error(f"--host is {settings.host!r}; expected an address of this machine, or unix:PATH")
    if settings.workers > 1 and settings.host.startswith("unix:"):
        parser.error(f"--workers is {settings.workers}, but a Unix socket is of one process alone")
    last = settings.metrics_port + settings.workers - 1
    if settings.metrics_port and last > _LAST_PORT:
        parser.error(f"--metrics-port is {settings.metrics_port}, and {last} for the last worker; expected 0 to 65535")


def _expected(option: Option, value: object) -> str:
    """What a value should have been; empty if it is that."""
    if isinstance(option.value, tuple) and value not in option.value:
        return " or ".join((", ".join(option.value[:-1]), option.value[-1]))
    if isinstance(value, str | bool) or not isinstance(value, int | float):
        return ""
    most = inf if option.most is None else option.most
    enough = value > 0 if option.least is None else value >= option.least
    if enough and value <= most and value != inf:  # NaN is neither
        return ""
    if most < inf:
        return f"more than 0, at most {most}" if option.least is None else f"{option.least} to {most}"
    return "more than 0" if option.least is None else f"{option.least} or more"
