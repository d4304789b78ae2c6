"""The closed list of reasons: why a request was answered as it was.

One word for one cause, shared by errors, audit records, metrics, `hip explain` and the tests. A reason is never
shown to the caller; the caller sees the public answer of its error type (`proxy.errors`) and an incident id.
A new cause gets a new member here and a test vector that names it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a request was allowed, refused or failed."""

    # The good end.
    ALLOWED = "allowed"

    # 0 listen, 1 classify: the message itself.
    MALFORMED_MESSAGE = "malformed_message"  # headers, target or framing that we do not pass on
    UNKNOWN_ROUTE = "unknown_route"  # no dialect names this path
    UNKNOWN_MODEL = "unknown_model"  # a path we know, a model no policy names
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    MALFORMED_BODY = "malformed_body"  # not the JSON (or tensor) that the dialect describes
    FORBIDDEN_PARAMETER = "forbidden_parameter"  # a request parameter that the rule does not allow
    PROXY_LOOP = "proxy_loop"

    # 2 authenticate.
    SOURCE_LIMIT = "source_limit"  # too many unauthenticated attempts from one address
    TOKEN_MISSING = "token_missing"  # noqa: S105 - a reason, not a secret
    TOKEN_DUPLICATE = "token_duplicate"  # noqa: S105 - a reason, not a secret
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a reason, not a secret
    TOKEN_ALGORITHM = "token_algorithm"  # noqa: S105 - a reason, not a secret
    TOKEN_TYPE = "token_type"  # noqa: S105 - a reason, not a secret
    TOKEN_ISSUER = "token_issuer"  # noqa: S105 - a reason, not a secret
    TOKEN_AUDIENCE = "token_audience"  # noqa: S105 - a reason, not a secret
    TOKEN_KEY_UNKNOWN = "token_key_unknown"  # noqa: S105 - a reason, not a secret
    TOKEN_SIGNATURE = "token_signature"  # noqa: S105 - a reason, not a secret
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason, not a secret
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"  # noqa: S105 - a reason, not a secret
    TOKEN_CLAIMS = "token_claims"  # noqa: S105 - a reason, not a secret
    TOKEN_BINDING = "token_binding"  # noqa: S105 - cnf unknown, or another certificate than the token's
    TOKEN_PROOF = "token_proof"  # noqa: S105 - no DPoP proof, or one that does not hold for this request
    TOKEN_REPLAYED = "token_replayed"  # noqa: S105 - a DPoP proof seen before
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a reason, not a secret
    CERTIFICATE_MISSING = "certificate_missing"
    CERTIFICATE_UNKNOWN = "certificate_unknown"  # no workload of the policy has this certificate's name
    CERTIFICATE_REVOKED = "certificate_revoked"
    PROOFS_UNAVAILABLE = "proofs_unavailable"  # whether a DPoP proof was seen before cannot be known
    REVOCATIONS_UNAVAILABLE = "revocations_unavailable"  # whether the caller is revoked cannot be known
    KEYS_UNAVAILABLE = "keys_unavailable"  # the issuer's keys could not be had, or are too old

    # 3 authorize.
    NO_RULE = "no_rule"  # default deny
    DENIED_BY_RULE = "denied_by_rule"
    MFA_MISSING = "mfa_missing"
    MFA_TOO_OLD = "mfa_too_old"

    # 4 charge.
    BUDGET_EXHAUSTED = "budget_exhausted"
    COST_ABOVE_LIMIT = "cost_above_limit"  # one request that costs more than a whole window
    LEDGER_UNAVAILABLE = "ledger_unavailable"

    # 5 inspect.
    SCHEMA_MISMATCH = "schema_mismatch"  # the input is not of the model's shape, type or range
    ANOMALOUS_INPUT = "anomalous_input"
    SUSPICIOUS_SEQUENCE = "suspicious_sequence"
    DETECTOR_FAILED = "detector_failed"
    SEQUENCES_UNAVAILABLE = "sequences_unavailable"  # what the caller asked before, on any worker, cannot be known
    MODEL_QUARANTINED = "model_quarantined"  # its golden inputs are answered otherwise than they should be

    # 6 forward, 7 harden.
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"  # not one clean HTTP answer
    UPSTREAM_ERROR = "upstream_error"  # 5xx and everything unexpected
    UPSTREAM_REJECTED = "upstream_rejected"  # 4xx: the model server did not accept the input
    UPSTREAM_OVERLOADED = "upstream_overloaded"  # 429, 503
    UPSTREAM_OPEN = "upstream_open"  # its circuit is open: down a moment ago, and not asked again yet
    UPSTREAM_TOO_LARGE = "upstream_too_large"
    UPSTREAM_UNREADABLE = "upstream_unreadable"  # an answer that the dialect cannot read completely

    # 8 audit, and ourselves.
    AUDIT_UNWRITABLE = "audit_unwritable"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    CLIENT_GONE = "client_gone"
    INTERNAL = "internal"
