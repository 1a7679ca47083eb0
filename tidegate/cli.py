"""The command `tidegate`: reads its arguments, calls what they ask for, and turns the outcome into an exit status.

0: done. 1: refused or failed, with one line on standard error. 2: wrong usage. 130: interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tidegate import commands
from tidegate.bookmark import Bookmark
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

With --keep the sequence outlives the command: stop it with Ctrl-C, or at the end of the table, and go on later with
`tidegate resume`. The file that is kept holds a secret.
"""

_RESUME_HELP = """\
Goes on with a sequence that `stream --keep` left, exactly where it was: now, or within the server's retention time.

KEEP is the file that was kept; it is kept up to date. The table holds the rows that come next; with --whole, all rows
from step 0 on, of which those that were sent are left out. For the rest see `tidegate stream --help`.
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
        bookmark = Bookmark.load(options.kept) if "kept" in options else None
        with Client(_server(options, bookmark), timeout=options.timeout) as client:
            if bookmark is None:
                _dispatch(client, options)
            else:
                _dispatch_kept(client, options, bookmark)
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


def _server(options: argparse.Namespace, bookmark: Bookmark | None) -> str:
    known = bookmark.server if bookmark is not None else os.environ.get("TIDEGATE_SERVER", _DEFAULT_SERVER)
    return options.server or known


def _dispatch_kept(client: Client, options: argparse.Namespace, bookmark: Bookmark) -> None:
    match options.command:
        case "resume":
            commands.resume(client, bookmark, _stream_order(options, bookmark), options.kept)
        case "state":
            commands.take_state(client, bookmark, options.output)
        case "fork":
            commands.fork(client, bookmark, options.other)
        case "rewind":
            commands.rewind(client, bookmark, options.step, options.kept)
        case "move":
            commands.move(client, bookmark, options.to, options.kept)
        case _:
            commands.end(client, bookmark, options.kept)


def _dispatch(client: Client, options: argparse.Namespace) -> None:
    match options.command:
        case "models":
            commands.list_models(client, as_json=options.json)
        case "describe":
            commands.describe(client, options.model, options.version, as_json=options.json)
        case _:
            commands.stream(client, _stream_order(options))


def _stream_order(options: argparse.Namespace, bookmark: Bookmark | None = None) -> commands.StreamOrder:
    output = options.output or ("drawing" if sys.stdout.isatty() else "csv")
    return commands.StreamOrder(
        model=options.model if bookmark is None else bookmark.model,
        version=options.version if bookmark is None else bookmark.version,
        state=options.state if bookmark is None else None,
        keep=options.keep if bookmark is None else None,
        whole=bookmark is not None and options.whole,
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
    if (
        options.command in {"stream", "resume"}
        and options.file == "-"
        and len(rest) == 1
        and not rest[0].startswith("-")
    ):
        options.file = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidegate", description="Recurrent networks as streams, with their gates.")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"the server (default: the one of a kept sequence, else $TIDEGATE_SERVER, else {_DEFAULT_SERVER})",
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
    _add_kept(commands_of)
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
    _add_table(stream)
    stream.add_argument("--state", metavar="FILE", help="begin from this state, as `tidegate state` writes it")
    stream.add_argument(
        "--keep", metavar="FILE", help="let the sequence outlive the command, and keep here how to go on"
    )


def _add_table(stream: argparse.ArgumentParser) -> None:
    stream.add_argument("file", metavar="FILE", nargs="?", default="-", help="CSV or .npy; - is standard input")
    stream.add_argument("--chunk", metavar="N", type=_count, default=1, help="send N steps in one message (default: 1)")
    stream.add_argument("--output", choices=_OUTPUTS, help="default: drawing in a terminal, csv in a pipe")
    stream.add_argument("--no-trace", dest="trace", action="store_false", help="outputs only, nothing of the inside")
    stream.add_argument("--layers", metavar="LIST", type=_numbers, help="trace these layers only, like 0 or 0,2 or 1-3")
    stream.add_argument("--every", metavar="N", type=_count, default=1, help="trace every N-th step (default: 1)")
    stream.add_argument("--units", metavar="LIST", type=_numbers, help="draw these units only, like 0-7 or 3,5")


def _add_kept(commands_of: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands for a sequence that was kept."""
    resume = commands_of.add_parser(
        "resume",
        help="go on with a kept sequence",
        description=_RESUME_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_keep(resume)
    _add_table(resume)
    resume.add_argument("--whole", action="store_true", help="the table begins at step 0: leave out what was sent")
    state = commands_of.add_parser(
        "state", help="take the state out", description="Writes the state of a kept sequence to a NumPy .npz file."
    )
    _add_keep(state)
    state.add_argument("output", metavar="FILE", help="the file to write")
    fork = commands_of.add_parser(
        "fork",
        help="begin another sequence where a kept one stands",
        description="Begins another sequence where a kept one stands, and keeps it, too.",
    )
    _add_keep(fork)
    fork.add_argument("other", metavar="NEW", help="the file to keep the other sequence in")
    rewind = commands_of.add_parser(
        "rewind",
        help="take a kept sequence back",
        description="Takes a kept sequence back to the newest checkpoint at or before a step.",
    )
    _add_keep(rewind)
    rewind.add_argument("step", metavar="STEP", type=_step, help="the number of the step to take next, at most")
    move = commands_of.add_parser(
        "move",
        help="go on with another version of the model",
        description="Has a kept sequence go on with another version of its model, without losing its memory.",
    )
    _add_keep(move)
    move.add_argument(
        "to", metavar="VERSION", nargs="?", type=_count, default=0, help="default: the newest that is ready"
    )
    end = commands_of.add_parser("end", help="end a kept sequence", description="Ends a kept sequence, and its file.")
    _add_keep(end)


def _add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kept", metavar="KEEP", help="the file that `stream --keep` wrote")


def _step(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


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
