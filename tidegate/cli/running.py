"""What the command `tidegate` was asked for: carried out, and what failed said in one line."""

import argparse
import os
import sys
from collections.abc import Sequence

from tidegate.cli import commands
from tidegate.cli.arguments import DEFAULT_SERVER, read
from tidegate.cli.bookmark import Bookmark
from tidegate.client import Client
from tidegate.drawing.names import printable
from tidegate.errors import Refused, TidegateError
from tidegate.trace import NOTHING, Trace


def run(arguments: Sequence[str] | None) -> int:
    """The exit status. Raises KeyboardInterrupt, BrokenPipeError; exits where the arguments make no sense."""
    options = read(arguments)
    try:
        bookmark = Bookmark.load(options.kept) if "kept" in options else None
        with Client(_server(options, bookmark), timeout=options.timeout, owner=options.owner) as client:
            _dispatch(client, options, bookmark)
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
    print(f"tidegate: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 1


def _server(options: argparse.Namespace, bookmark: Bookmark | None) -> str:
    known = bookmark.server if bookmark is not None else os.environ.get("TIDEGATE_SERVER", DEFAULT_SERVER)
    return options.server or known


def _dispatch(client: Client, options: argparse.Namespace, bookmark: Bookmark | None) -> None:
    match options.command, bookmark:
        case "models", _:
            commands.list_models(client, as_json=options.json)
        case "describe", _:
            commands.describe(client, options.model, options.version, as_json=options.json)
        case "resume", Bookmark():
            commands.resume(client, bookmark, _stream_order(options, bookmark), options.kept)
        case "state", Bookmark():
            commands.take_state(client, bookmark, options.output)
        case "fork", Bookmark():
            commands.fork(client, bookmark, options.other)
        case "rewind", Bookmark():
            commands.rewind(client, bookmark, options.step, options.kept)
        case "move", Bookmark():
            commands.move(client, bookmark, options.to, options.kept)
        case "end", Bookmark():
            commands.end(client, bookmark, options.kept)
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
