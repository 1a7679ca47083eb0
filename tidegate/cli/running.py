"""What the command `tidegate` was asked for: carried out, and what failed said in one line."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence

from tidegate.cli import commands, kept, operators
from tidegate.cli.arguments import DEFAULT_SERVER, read
from tidegate.cli.operator_arguments import COMMANDS
from tidegate.client import Client
from tidegate.drawing.names import printable
from tidegate.errors import Refused, TidegateError

_OF_SERIES = {"resume", "end"}  # which take a folder of kept sequences, too
_KEYWORDS = re.compile(r"\b(ca|cert|key|token_file)=(?!\w)")  # arguments of `tidegate.connect`


def run(arguments: Sequence[str] | None) -> int:
    """The exit status. Raises KeyboardInterrupt, BrokenPipeError; exits where the arguments make no sense."""
    options = read(arguments)
    try:
        options.bookmarks = kept.load(options.kept) if "kept" in options else {}
        if options.bookmarks and options.command not in _OF_SERIES:
            options.bookmark = kept.one(options.kept, options.bookmarks)
        with _client(options) as client:
            getattr(operators if options.command in COMMANDS else commands, options.command)(client, options)
    except BrokenPipeError:
        raise
    except Refused as error:
        return _fail(f"{error.message} ({error.reason})")
    except OSError as error:  # a ConnectionLost is one, too
        why = error.strerror or str(error)
        return _fail(f"{error.filename}: {why}" if error.filename else why)
    except (TidegateError, ValueError, UnicodeError) as error:
        return _fail(str(error))
    return 0


def _client(options: Namespace) -> Client:
    """Of the server that was named, else that of a kept sequence, else that of the environment."""
    bookmarks = options.bookmarks.values()
    known = next((each.server for each in bookmarks), os.environ.get("TIDEGATE_SERVER", DEFAULT_SERVER))
    address = options.server or known
    return Client(
        f"https://{address}" if options.tls and "://" not in address else address,
        timeout=options.timeout,
        owner=options.owner,
        ca=options.ca,
        cert=options.cert,
        key=options.key,
        token_file=options.token_file,
        insecure=options.insecure,
    )


def _fail(message: str) -> int:
    as_options = _KEYWORDS.sub(lambda found: f"--{found[1].replace('_', '-')}", " ".join(message.split()))
    print(f"tidegate: {printable(as_options)}", file=sys.stderr)
    return 1
