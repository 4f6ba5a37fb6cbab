"""Every error the service raises on purpose, with its slug: what programs call it.

VqdError                       internal                a bug, or an answer that no one expected
├── SetupError                 setup                   the installation, a setting or a model folder is wrong
├── InvalidRequest             invalid-request         names the field and what is allowed
├── Unauthorized               unauthorized            there is no valid API key
├── Forbidden                  forbidden               the key is valid, and may not do this
├── NotFound                   not-found               no such job, picture or model, or no longer
├── NotAcceptable              not-acceptable          the answer cannot have the form that Accept asks for
├── StillRunning               still-running           the caller waits for the pictures, and has waited for long enough
├── Conflict                   conflict                the job's state does not allow it
├── PayloadTooLarge            payload-too-large
├── UnsupportedMediaType       unsupported-media-type  the body is not JSON
├── RetryLater                                         worth another try, after some seconds
│   ├── QuotaExceeded          quota-exceeded          the caller's limit
│   └── Unavailable            unavailable             our limit
│       ├── OtherVersion       other-version           a record that only another version of the service can read
│       ├── QueueFull          queue-full
│       ├── NotDurable         not-durable             too few replicas of Redis have the job
│       ├── RedisUnavailable   redis-unavailable
│       ├── StorageUnavailable storage-unavailable     the S3 storage that has the pictures
│       └── TritonUnavailable  triton-unavailable      no answer, no connection
│           └── TritonTimeout                          it is connected, and silent for too long
├── InferenceFailed            inference-failed        Triton answered, and the answer is no use
│   └── GivenUp                given-up                each worker that ran the job was lost
└── StaleEpoch                 stale-epoch             a fenced write: another worker owns the job now
    └── DeadlinePassed         deadline-passed         the job ended at its deadline, whoever had it

A class without a slug of its own has its parent's. What HTTP makes of each stands in ``service.gateway.problems``.
"""

from collections.abc import Iterator
from typing import ClassVar


class VqdError(Exception):
    """Base of all. A slug never changes: it is the last part of a problem's type, and clients map it back."""

    slug: ClassVar[str] = "internal"


def subclasses(kind: type[VqdError]) -> Iterator[type[VqdError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def by_slug(slug: str) -> type[VqdError] | None:
    """The class that a problem's type or a stored failure names; None when this version has none."""
    return next((kind for kind in subclasses(VqdError) if kind.slug == slug), None)


class SetupError(VqdError):
    slug = "setup"


class InvalidRequest(VqdError):
    """``field`` is the name the client used; the message says what is allowed there."""

    slug = "invalid-request"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)  # what pickle makes it again from, in another process
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def with_allowed(message: str, allowed: str | None) -> str:
    """``message``, and what is allowed if that does not say so already."""
    return message if not allowed or allowed in message else f"{message} (allowed: {allowed})"


class Unauthorized(VqdError):
    slug = "unauthorized"


class Forbidden(VqdError):
    slug = "forbidden"


class NotFound(VqdError):
    slug = "not-found"


class NotAcceptable(VqdError):
    slug = "not-acceptable"


class StillRunning(VqdError):
    slug = "still-running"


class Conflict(VqdError):
    slug = "conflict"


class PayloadTooLarge(VqdError):
    slug = "payload-too-large"


class UnsupportedMediaType(VqdError):
    slug = "unsupported-media-type"


class RetryLater(VqdError):
    """An error that time may heal; ``retry_after_s`` becomes the Retry-After header."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(RetryLater):
    slug = "quota-exceeded"


class Unavailable(RetryLater):
    slug = "unavailable"


class OtherVersion(Unavailable):
    slug = "other-version"


class QueueFull(Unavailable):
    slug = "queue-full"


class NotDurable(Unavailable):
    slug = "not-durable"


class RedisUnavailable(Unavailable):
    slug = "redis-unavailable"


class StorageUnavailable(Unavailable):
    """``refused``: it answered that it will not, which time does not heal."""

    slug = "storage-unavailable"

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class TritonUnavailable(Unavailable):
    """``reached``: an inference was under way when it went, and may be why."""

    slug = "triton-unavailable"

    def __init__(self, message: str, reached: bool = False) -> None:
        super().__init__(message)
        self.reached = reached


class TritonTimeout(TritonUnavailable):
    """Connected, and silent for too long."""


class InferenceFailed(VqdError):
    slug = "inference-failed"


class GivenUp(InferenceFailed):
    slug = "given-up"


class StaleEpoch(VqdError):
    slug = "stale-epoch"


class DeadlinePassed(StaleEpoch):
    """The job has ended, but nobody took it away."""

    slug = "deadline-passed"
