"""The fields of a config as options of a command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from training.field import Field


def add_fields(parser: argparse.ArgumentParser, fields: Sequence[Field]) -> None:
    """One option for each field, without a default: only what is given overrides the config."""
    for field in fields:
        if field.kind is bool:
            parser.add_argument(
                field.flag, dest=field.name, action="store_true", default=argparse.SUPPRESS, help=field.help
            )
            continue
        parser.add_argument(
            field.flag,
            dest=field.name,
            type=reader(field),
            nargs="+" if field.item is str else None,
            action="extend" if field.item is str else "store",
            default=argparse.SUPPRESS,
            metavar="|".join(field.choices) or field.name.rstrip("_").rpartition("_")[2].upper(),
            help=field.help.replace("%", "%%"),
        )


def reader(field: Field) -> Callable[[str], object]:
    """The field's `parse`, with errors as argparse wants them."""

    def read(text: str) -> object:
        try:
            return field.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
