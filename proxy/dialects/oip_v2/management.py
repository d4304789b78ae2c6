"""What a rule in words may open of a server's management: its repository, a model's configuration, its statistics.

https://github.com/triton-inference-server/server/tree/main/docs/protocol: the extensions model repository, model
configuration and statistics. A reply is rebuilt from what is named here: models of the rule, states, counts and times,
tensors. Requests have no body, so that nobody loads a model with files of his own. Paths, backends' parameters and a
server's words about a failure stay behind; whatever else there is (`docs`) is not read, and no rule opens it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeVar

import msgspec

from proxy.dialects.oip_v2 import replies, tensors
from proxy.dialects.oip_v2.datatypes import Unreadable
from proxy.exchange import Action, Hardened, Reply, Target

MAX_ENTRIES = 1024  # of a list

T = TypeVar("T")


class _Indexed(msgspec.Struct, omit_defaults=True):
    name: str
    version: str | None = None
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING", "UNKNOWN", ""] = ""


class _Duration(msgspec.Struct):
    count: int
    ns: int


class _Batch(msgspec.Struct):
    batch_size: int
    compute_input: _Duration
    compute_infer: _Duration
    compute_output: _Duration


class _Counted(msgspec.Struct):
    name: str
    version: str = ""
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: dict[str, _Duration] = {}
    batch_stats: list[_Batch] = []


class _Statistics(msgspec.Struct):
    model_stats: list[_Counted]


class _Tensor(msgspec.Struct):
    name: str
    data_type: str
    dims: list[int]


class _Config(msgspec.Struct):
    name: str
    max_batch_size: int = 0
    input: list[_Tensor] = []
    output: list[_Tensor] = []


_index_decoder = msgspec.json.Decoder(list[_Indexed])
_statistics_decoder = msgspec.json.Decoder(_Statistics)
_config_decoder = msgspec.json.Decoder(_Config)
_encode = msgspec.json.Encoder().encode


def harden(target: Target, reply: Reply) -> Hardened:
    """Return what may leave. Raise ValueError or msgspec.DecodeError for what is not of the form."""
    return Hardened(tensors.JSON, READ[target.action](target, reply))


def _repository(target: Target, reply: Reply) -> bytes:
    if target.model is not None:
        return b"{}"  # it is loaded, or unloaded
    found = _index_decoder.decode(reply.body)
    shown = [one for one in _few(found) if one.name in target.models]
    for one in shown:
        one.version = None if one.version is None else replies.name(one.version)
    return _encode(shown)


def _statistics(target: Target, reply: Reply) -> bytes:
    known = target.models if target.model is None else (target.model,)
    shown = [one for one in _few(_statistics_decoder.decode(reply.body).model_stats) if one.name in known]
    for one in shown:
        one.version = replies.name(one.version)
        one.inference_stats = {replies.name(key): value for key, value in one.inference_stats.items()}
        _few([*one.inference_stats, *one.batch_stats])
    return _encode(_Statistics(shown))


def _config(target: Target, reply: Reply) -> bytes:
    found = _config_decoder.decode(reply.body)
    found.name = target.model or ""
    for one in _few([*found.input, *found.output]):
        one.name, one.data_type = replies.name(one.name), replies.name(one.data_type)
        one.dims = one.dims[: tensors.MAX_RANK]
    return _encode(found)


def _few(entries: list[T]) -> list[T]:
    if len(entries) > MAX_ENTRIES:
        raise Unreadable("number of entries")
    return entries


READ: Mapping[Action, Callable[[Target, Reply], bytes]] = MappingProxyType(
    {Action.REPOSITORY: _repository, Action.STATISTICS: _statistics, Action.CONFIG: _config}
)
