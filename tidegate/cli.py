"""The command `tidegate`: reads its arguments, calls what they ask for, and turns the outcome into an exit status.

0: done. 1: refused or failed, with one line on standard error. 2: wrong usage. 130: interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tidegate import commands
from tidegate.client import Client
from tidegate.errors import Refused, TidegateError
from tidegate.trace import NOTHING, Trace

_DEFAULT_SERVER = "localhost:50051"
_OUTPUTS = ("drawing", "csv", "jsonl")

_STREAM_HELP = """\
Sends a table through a new sequence, one step for each row, and prints each answer as it comes.

The table is a CSV file, a NumPy .npy file, or standard input (-, the default). With a header, the model's columns are
found by their names in any order, and others are left out; without one, they stand in the order of `describe`.

In a terminal the answers are drawn: each unit's gates as o (open, > 0.9), - (closed, < 0.1) or a shade between, its
cell and hidden state as a bar or a mark. In a pipe they are CSV: step, the outputs, and the trace in columns like
l0.forget.3 (layer 0, forget gate, unit 3).
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command line; exits."""
    options = _options(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _run(options: argparse.Namespace) -> int:
    try:
        with Client(options.server, timeout=options.timeout) as client:
            _dispatch(client, options)
    except BrokenPipeError:
        raise
    except Refused as error:
        return _fail(f"{error.message} ({error.reason})")
    except OSError as error:  # a ConnectionLost is one, too
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (TidegateError, ValueError, UnicodeError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"tidegate: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _dispatch(client: Client, options: argparse.Namespace) -> None:
    match options.command:
        case "models":
            commands.list_models(client, as_json=options.json)
        case "describe":
            commands.describe(client, options.model, options.version, as_json=options.json)
        case _:
            commands.stream(client, _stream_order(options))


def _stream_order(options: argparse.Namespace) -> commands.StreamOrder:
    output = options.output or ("drawing" if sys.stdout.isatty() else "csv")
    return commands.StreamOrder(
        model=options.model,
        version=options.version,
        source=options.file,
        chunk=options.chunk,
        output=output,
        trace=Trace(layers=options.layers, every=options.every) if options.trace else NOTHING,
        units=options.units,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments as they are meant; exits if they make no sense."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes an optional FILE that stands after options for one too many: it has settled that there is none.
    if options.command == "stream" and options.file == "-" and len(rest) == 1 and not rest[0].startswith("-"):
        options.file = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidegate", description="Recurrent networks as streams, with their gates.")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("TIDEGATE_SERVER", _DEFAULT_SERVER),
        help=f"the server (default: $TIDEGATE_SERVER, else {_DEFAULT_SERVER})",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=30.0, help="the longest wait for an answer (default: 30)"
    )
    commands_of = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    models = commands_of.add_parser("models", help="list the server's models", description="Lists the server's models.")
    models.add_argument("--json", action="store_true", help="as a JSON list")
    describe = commands_of.add_parser(
        "describe", help="show one model", description="Shows a model's inputs, outputs, layers, gates and proof."
    )
    _add_model(describe)
    describe.add_argument("--json", action="store_true", help="as a JSON object")
    _add_stream(commands_of)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="its name")
    parser.add_argument(
        "--version", metavar="N", type=_count, default=0, help="its version (default: the newest that is ready)"
    )


def _add_stream(commands_of: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stream = commands_of.add_parser(
        "stream",
        help="send a table through a sequence",
        description=_STREAM_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(stream)
    stream.add_argument("file", metavar="FILE", nargs="?", default="-", help="CSV or .npy; - is standard input")
    stream.add_argument("--chunk", metavar="N", type=_count, default=1, help="send N steps in one message (default: 1)")
    stream.add_argument("--output", choices=_OUTPUTS, help="default: drawing in a terminal, csv in a pipe")
    stream.add_argument("--no-trace", dest="trace", action="store_false", help="outputs only, nothing of the inside")
    stream.add_argument("--layers", metavar="LIST", type=_numbers, help="trace these layers only, like 0 or 0,2 or 1-3")
    stream.add_argument("--every", metavar="N", type=_count, default=1, help="trace every N-th step (default: 1)")
    stream.add_argument("--units", metavar="LIST", type=_numbers, help="draw these units only, like 0-7 or 3,5")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return seconds


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers like 0,2 or 1-3, each once and in order."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no number")
    return tuple(sorted(found))


if __name__ == "__main__":
    main()
