"""The command `tidegate`: reads its arguments, calls what they ask for, and turns the outcome into an exit status.

0: done. 1: refused or failed, with one line on standard error. 2: wrong usage. 130: interrupted. 129 and 143: a
sequence that is kept was left in order at SIGHUP or SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tidegate.cli import commands
from tidegate.cli.arguments import DEFAULT_SERVER, read
from tidegate.cli.bookmark import Bookmark
from tidegate.cli.interrupt import Stopped
from tidegate.client import Client
from tidegate.errors import Refused, TidegateError
from tidegate.trace import NOTHING, Trace


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command line; exits."""
    _open_what_is_closed()
    options = read(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
    except Stopped as stopped:
        status = stopped.status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _open_what_is_closed() -> None:
    """A shell may start a command without standard input or output (`<&-`, `>&-`); Python has None for them then."""
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - until the end
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _run(options: argparse.Namespace) -> int:
    try:
        bookmark = Bookmark.load(options.kept) if "kept" in options else None
        with Client(_server(options, bookmark), timeout=options.timeout, owner=options.owner) as client:
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
    known = bookmark.server if bookmark is not None else os.environ.get("TIDEGATE_SERVER", DEFAULT_SERVER)
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


if __name__ == "__main__":
    main()
