"""The arguments of the command `tidegate`, with their help. Carries out nothing."""

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn, TypeAlias

from tidegate.cli import operator_arguments

DEFAULT_SERVER = "localhost:50051"
_OUTPUTS = ("drawing", "csv", "jsonl")

_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 - the library's only name for it

_STREAM_HELP = """\
Sends a table through a new sequence, one step for each row, and prints each answer as it comes.

The table is a CSV, JSON, Parquet or NumPy .npy file, or standard input (-, the default): CSV; JSON with --input json.
With names, the model's columns are found by them in any order, and others are left out; without names, they stand in
the order of `describe`. JSON is an object in each line, or an array of them; what one lacks is an empty cell. Parquet
needs DuckDB or PyArrow (pip install duckdb). Several files with names are one table, one below the other.

Where a table's columns tell the model's series apart (see `describe`), each series has a sequence of its own. Answers
come in the order of the rows, each with its series.

In a terminal the answers are drawn: each unit's gates as o (open, > 0.9), - (closed, < 0.1) or a shade between, its
cell and hidden state as a bar or a mark. In a pipe they are CSV: step, the outputs, and the trace in columns like
l0.forget.3 (layer 0, forget gate, unit 3).

With --keep the sequence outlives the command: stop it with Ctrl-C, or at the end of the table, and go on later with
`tidegate resume`. The file that is kept holds a secret. Series are kept in a folder, with a file for each.
"""

_RESUME_HELP = """\
Goes on with a sequence that `stream --keep` left, exactly where it was: now, or within the server's retention time.

KEEP is the file, or the folder, that was kept; it is kept up to date. The table holds the rows that come next; with
--whole, all rows from step 0 on, of which those that were sent are left out. Of the inside of a step it shows what was
shown before, unless --trace, --no-trace, --layers or --every is given. For the rest see `tidegate stream --help`.
"""


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command in {"stream", "resume"}:
        # argparse takes each FILE that stands after options for one too many: it has settled how many there are.
        options.files = [*options.files, *(one for one in rest if not one[1:] or one[0] != "-")] or ["-"]
        rest = [one for one in rest if one[1:] and one[0] == "-"]
    if rest:
        parser.prog = f"{parser.prog} {options.command}"
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, which names the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:  # run from its sources, as in the server's image
        return "(not installed)"


def _parser() -> _Parser:
    about = "Recurrent networks as streams, with their gates."
    parser = _Parser(prog="tidegate", description=about, parents=[_anywhere()])
    parser.add_argument("--version", action="version", version=f"tidegate {_version()}")
    parser.set_defaults(server=None, timeout=30.0, owner="", tls=False, insecure=False)
    parser.set_defaults(ca=None, cert=None, key=None, token_file=None)
    commands_of = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    models = _command(commands_of, "models", "list the server's models", "Lists the server's models.")
    models.add_argument("--json", action="store_true", help="as a JSON list")
    shown = "Shows a model's inputs, outputs, layers, gates and proof."
    describe = _command(commands_of, "describe", "show one model", shown)
    _add_model(describe)
    describe.add_argument("--json", action="store_true", help="as a JSON object")
    _add_stream(commands_of)
    _add_kept(commands_of)
    operator_arguments.add(commands_of, _command)
    return parser


def _command(commands_of: _Commands, name: str, summary: str, text: str) -> _Parser:
    """Adds a command; a description of several lines is printed as it is written."""
    form = argparse.RawDescriptionHelpFormatter if "\n" in text else argparse.HelpFormatter
    return commands_of.add_parser(name, parents=[_anywhere()], help=summary, description=text, formatter_class=form)


def _anywhere() -> "_Parser":
    """The options that may stand before or after the command; without defaults, which would override given ones."""
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    default = f"the one of a kept sequence, else $TIDEGATE_SERVER, else {DEFAULT_SERVER}"
    parser.add_argument("--server", metavar="ADDRESS", help=f"HOST:PORT or https://HOST:PORT (default: {default})")
    longest = "the longest wait for an answer (default: 30)"
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, help=longest)
    parser.add_argument("--owner", metavar="NAME", help="the name that the server's limits count the sequence for")
    parser.add_argument("--tls", action="store_true", help="encrypted, as with https:// before the server's name")
    parser.add_argument("--ca", metavar="FILE", help="issuers that are trusted; else $TIDEGATE_CA, else those of gRPC")
    parser.add_argument("--cert", metavar="FILE", help="a certificate to show the server; else $TIDEGATE_CERT")
    parser.add_argument("--key", metavar="FILE", help="its private key; else $TIDEGATE_KEY")
    held = "holds the token to show the server; else $TIDEGATE_TOKEN_FILE, else the token is $TIDEGATE_TOKEN"
    parser.add_argument("--token-file", metavar="FILE", help=held)
    parser.add_argument("--insecure", action="store_true", help="the token may go to another machine unencrypted")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="its name")
    newest = "its version (default: the newest that is ready)"
    parser.add_argument("--version", metavar="N", type=_count, default=0, help=newest)


def _add_stream(commands_of: _Commands) -> None:
    stream = _command(commands_of, "stream", "send a table through a sequence", _STREAM_HELP)
    _add_model(stream)
    _add_table(stream)
    stream.add_argument("--state", metavar="FILE", help="begin from this state, as `tidegate state` writes it")
    stream.add_argument("--keep", metavar="FILE", help="let the sequence outlive the command: how to go on with it")


def _add_table(stream: argparse.ArgumentParser) -> None:
    stream.add_argument(
        "files", metavar="FILE", nargs="*", help="CSV, JSON, Parquet or .npy; - is standard input (the default)"
    )
    stream.add_argument("--input", choices=("csv", "json"), help="default: by the end of its name, else csv")
    stream.add_argument("--chunk", metavar="N", type=_count, default=1, help="send N steps in one message (default: 1)")
    stream.add_argument("--output", choices=_OUTPUTS, help="default: drawing in a terminal, csv in a pipe")
    shown = "all of the inside of each step (the default of `stream`), or outputs only"
    stream.add_argument("--trace", action=argparse.BooleanOptionalAction, help=shown)
    stream.add_argument("--layers", metavar="LIST", type=_numbers, help="trace these layers only, like 0 or 0,2 or 1-3")
    stream.add_argument("--every", metavar="N", type=_count, help="trace every N-th step (default: 1)")
    stream.add_argument("--units", metavar="LIST", type=_numbers, help="draw these units only, like 0-7 or 3,5")


def _add_kept(commands_of: _Commands) -> None:
    resume = _kept(commands_of, "resume", "go on with a kept sequence", _RESUME_HELP)
    _add_table(resume)
    resume.add_argument("--whole", action="store_true", help="the table begins at step 0: leave out what was sent")
    why = "Writes the state of a kept sequence to a NumPy .npz file."
    state = _kept(commands_of, "state", "take the state out", why)
    state.add_argument("output", metavar="FILE", help="the file to write")
    why = "Begins another sequence where a kept one stands, and keeps it, too."
    fork = _kept(commands_of, "fork", "begin another sequence where a kept one stands", why)
    fork.add_argument("other", metavar="NEW", help="the file to keep the other sequence in")
    why = "Takes a kept sequence back to the newest checkpoint at or before a step."
    rewind = _kept(commands_of, "rewind", "take a kept sequence back", why)
    rewind.add_argument("step", metavar="STEP", type=_step, help="the number of the step to take next, at most")
    why = "Has a kept sequence go on with another version of its model, without losing its memory."
    move = _kept(commands_of, "move", "go on with another version of the model", why)
    newest = "default: the newest that is ready"
    move.add_argument("to", metavar="VERSION", nargs="?", type=_count, default=0, help=newest)
    _kept(commands_of, "end", "end a kept sequence", "Ends a kept sequence, and its file.")


def _kept(commands_of: _Commands, name: str, summary: str, description: str) -> _Parser:
    parser = _command(commands_of, name, summary, description)
    parser.add_argument("kept", metavar="KEEP", help="the file that `stream --keep` wrote, or its folder")
    return parser


def _step(text: str) -> int:
    return _whole(text, 0)


def _count(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _numbers(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not all(bound.isascii() and bound.isdigit() for bound in (first, last or first)):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 0,2 or 1-3")
        found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no number")
    return tuple(sorted(found))
