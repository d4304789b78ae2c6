"""The error that a field's own validator raises: its words reach the reader as they are."""

from pydantic_core import PydanticCustomError

FAULT = "fault"  # the type by which `proxy.documents.validation` knows it


def fault(template: str, hint: str = "", **facts: object) -> PydanticCustomError:
    """Return an error to raise. A message that begins with `must` gets the name of its field before it."""
    return PydanticCustomError(FAULT, template, {key: str(value) for key, value in facts.items()} | {"hint": hint})
