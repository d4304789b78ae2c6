"""The skeleton of an upstream's error: enough to find the fault, nothing that a caller may have put there.

Decides what of an error body is kept: its size, its SHA-256, its media type, well-known exception names and the file
names and lines of stack frames. Names come from closed tables; a place that also occurs in the request is dropped, so
that an input which the model server quotes does not reach the record. What a caller hides in an encoding that the
server undoes (base64, compression) and shapes like a stack frame is NOT recognised: it can smuggle a file name.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from itertools import islice
from urllib.parse import unquote_to_bytes

from proxy.record import UpstreamError

MAX_ERRORS = 16
MAX_PLACES = 16
SCAN_BYTES = 64 * 1024  # half from the front, half from the end: a traceback's last frames are the telling ones
MAX_FILE_NAME = 48  # characters

_MEDIA_TYPES = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/problem+json",
        "application/x-protobuf",
        "text/html",
        "text/plain",
        "text/event-stream",
    }
)

# Closed: a name that a caller invents is not in it.
_ERROR_NAMES = """
    ArithmeticError AssertionError AttributeError BrokenPipeError BufferError ConnectionError ConnectionRefusedError
    ConnectionResetError EOFError Exception FileNotFoundError FloatingPointError ImportError IndexError IOError
    IsADirectoryError JSONDecodeError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError
    NotADirectoryError NotImplementedError OSError OverflowError PermissionError RecursionError RuntimeError
    StopIteration SyntaxError SystemError SystemExit TimeoutError TypeError UnboundLocalError UnicodeDecodeError
    UnicodeEncodeError ValueError ZeroDivisionError
    AxisError DTypePromotionError LinAlgError NotFittedError DataConversionWarning
    ArrowInvalid EmptyDataError ParserError UndefinedVariableError
    OutOfMemoryError AcceleratorError CudaError DistributedError
    InvalidArgumentError FailedPreconditionError InternalError NotFoundError ResourceExhaustedError UnavailableError
    InferenceError InferenceServerException InvalidArgument InvalidGraph InvalidInput ModelNotFound NoSuchFile
    OnnxRuntimeException RuntimeException TritonError TritonModelException
    HTTPException MlflowException RequestValidationError ValidationError
    IllegalArgumentException IllegalStateException IndexOutOfBoundsException NullPointerException
"""
_KNOWN_ERRORS = frozenset(_ERROR_NAMES.split())

_ERROR = re.compile(rb"(?<![A-Za-z0-9_])[A-Z][A-Za-z]{2,40}(?![A-Za-z0-9_])")
_NAME = rb"([A-Za-z0-9_.-]{1,%d}\.(?:py|pyx|cc|cpp|cu|h|hpp|rs|go|java))" % MAX_FILE_NAME
_PLACE = re.compile(
    rb'File \\{0,3}"(?:[^"\\\n]{0,512}[/\\])?' + _NAME + rb'\\{0,3}", line ([0-9]{1,6})'  # Python, bare or in JSON
    rb"|(?<![A-Za-z0-9_.-])" + _NAME + rb":([0-9]{1,6})(?![0-9])"  # C++, Go, Rust, Java
)
_UNICODE_ESCAPE = re.compile(rb"\\u00([0-7][0-9A-Fa-f])")


def skeleton(body: bytes, content_type: bytes | None, request: bytes) -> UpstreamError:
    """Return what is kept. `request` is everything that the caller could choose and the upstream could quote."""
    scanned = body if len(body) <= SCAN_BYTES else body[: SCAN_BYTES // 2] + b"\n" + body[-SCAN_BYTES // 2 :]
    errors = (name.decode() for name in _ERROR.findall(scanned))
    spoken = _as_a_server_reads_it(request)
    places = (_place(match) for match in _PLACE.finditer(scanned))
    return UpstreamError(
        bytes=len(body),
        digest=sha256(body).hexdigest(),
        content_type=_media_type(content_type),
        errors=_first(MAX_ERRORS, (name for name in errors if name in _KNOWN_ERRORS)),
        places=_first(MAX_PLACES, (f"{name}:{line}" for name, line in places if name.encode() not in spoken)),
    )


def _place(match: re.Match[bytes]) -> tuple[str, str]:
    python, python_line, other, other_line = match.groups()
    return (python or other).decode(), (python_line or other_line).decode()


def _first(cap: int, found: Iterable[str]) -> tuple[str, ...]:
    return tuple(islice(dict.fromkeys(found), cap))


def _media_type(value: bytes | None) -> str | None:
    if value is None:
        return None
    essence = value.partition(b";")[0].strip().lower().decode("latin-1")
    return essence if essence in _MEDIA_TYPES else "other"


def _as_a_server_reads_it(request: bytes) -> bytes:
    """Return the request with the escapes undone that a JSON or URL reader undoes."""
    plain = _UNICODE_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), request)
    return request + b"\n" + plain + b"\n" + unquote_to_bytes(request)
