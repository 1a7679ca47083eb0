"""The names in a model file. Protobuf hands out bytes where the file holds no UTF-8, whatever the types say."""

from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def unreadable(message: Message) -> str | None:
    """The first name in a model, or in a part of one, that is not UTF-8, with those bytes spelt out; None if all are.

    Comments (`doc_string`) may hold anything: nobody reads them.
    """
    raw = next((text for text in _texts(message) if isinstance(text, bytes)), None)
    return None if raw is None else raw.decode(errors="backslashreplace")


def _texts(message: Message) -> Iterator[str | bytes]:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING and field.name != "doc_string":
            yield from [value] if isinstance(value, str | bytes) else value
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _texts(inner)
