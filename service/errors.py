"""Every error the service raises on purpose, and what an HTTP client sees of it.

VqdError                    500  internal
├── SetupError              500  setup           the installation, a setting or a model folder is wrong
├── InvalidRequest          422  invalid-request names the field and what is allowed
├── Unauthorized            401  unauthorized
├── NotFound                404  not-found
├── NotAcceptable           406  not-acceptable
├── Conflict                409  conflict
├── PayloadTooLarge         413  payload-too-large
├── UnsupportedMediaType    415  unsupported-media-type
├── QuotaExceeded           429  quota-exceeded  the caller's limit; Retry-After
├── Unavailable             503  unavailable     our limit; Retry-After
│   ├── QueueFull           503  queue-full
│   ├── RedisUnavailable    503  redis-unavailable
│   └── TritonUnavailable   503  triton-unavailable   no answer, no connection: worth another try
│       └── TritonTimeout   503  triton-unavailable   it is connected, and silent for too long
├── InferenceFailed         500  inference-failed     Triton answered, and the answer is no use
└── StaleEpoch              409  stale-epoch     a fenced write: another worker owns the job now
    └── DeadlinePassed      409  stale-epoch     the job ended at its deadline while it ran
"""

from typing import ClassVar


class VqdError(Exception):
    """Base of all. ``status`` and ``slug`` are the HTTP status and the last part of the RFC 9457 problem type."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"


class SetupError(VqdError):
    slug, title = "setup", "The service is not set up correctly"


class InvalidRequest(VqdError):
    """``field`` is the name the client used; the message says what is allowed there."""

    status, slug, title = 422, "invalid-request", "The request is not valid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class Unauthorized(VqdError):
    status, slug, title = 401, "unauthorized", "A valid API key is needed"


class NotFound(VqdError):
    status, slug, title = 404, "not-found", "There is no such thing here"


class NotAcceptable(VqdError):
    status, slug, title = 406, "not-acceptable", "The answer cannot have the form that Accept asks for"


class Conflict(VqdError):
    status, slug, title = 409, "conflict", "The request conflicts with the present state"


class PayloadTooLarge(VqdError):
    status, slug, title = 413, "payload-too-large", "The request body is too large"


class UnsupportedMediaType(VqdError):
    status, slug, title = 415, "unsupported-media-type", "The body must be JSON"


class RetryLater(VqdError):
    """An error that time may heal; ``retry_after_s`` becomes the Retry-After header."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(RetryLater):
    status, slug, title = 429, "quota-exceeded", "Your limit is reached"


class Unavailable(RetryLater):
    status, slug, title = 503, "unavailable", "The service cannot take this now"


class QueueFull(Unavailable):
    slug, title = "queue-full", "The queue is full"


class RedisUnavailable(Unavailable):
    slug, title = "redis-unavailable", "The queue's store does not answer"


class TritonUnavailable(Unavailable):
    slug, title = "triton-unavailable", "The inference server does not answer"


class TritonTimeout(TritonUnavailable):
    """Connected, and silent for too long."""


class InferenceFailed(VqdError):
    slug, title = "inference-failed", "The model gave no usable answer"


class StaleEpoch(VqdError):
    status, slug, title = 409, "stale-epoch", "Another worker owns this job now"


class DeadlinePassed(StaleEpoch):
    """The job has ended, but nobody took it away."""
