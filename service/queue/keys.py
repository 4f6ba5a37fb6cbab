"""Every Redis key. All share the hash tag {vqd}, so that one script may touch several of them on a cluster too.

Lifetimes: a job's keys live for ever while it is queued or running (it must not be lost, however long it waits), and
``result_ttl_s`` after it ended; an idempotency key lives ``idempotency_ttl_s``, longer than the result, so that a very
late retry still does not run twice; registrations expire by their own time; streams and counters stay, and so do API
keys, revoked ones too.
"""

from service.messages import Priority

GROUP = "workers"
"""The consumer group of every job stream; it starts at 0, so a job enqueued before the first worker is read too."""

HANDOVER = "handover"
"""The third stream of a model, beside one per priority: jobs that a stopping worker gave back. Read first."""

LANES = (HANDOVER, *(priority.value for priority in Priority))

CHANNEL = "{vqd}:changed"
"""Pub/sub: the id of a job, at each of its events and changes of state."""

COUNTERS = "{vqd}:counters"
"""Hash: refused writes, dead-lettered jobs, and ended jobs by status. Kept for ever: they are counters."""

WORKERS = "{vqd}:workers"
"""Hash: worker → registration."""

WORKERS_UNTIL = "{vqd}:workers:until"
"""Sorted set: worker → Redis time, ms, at which its registration ends."""

API_KEYS = "{vqd}:keys"
"""Sorted set: the id of every API key by the time it was made. Revoked and expired ones stay, so that the end of the
last one does not open the service again."""

KEY_SECRETS = "{vqd}:key-secrets"
"""Hash: SHA-256 of a key's token → "id until_ms", 0 without an end. One that has ended goes with the next rotation."""


def api_key(key_id: str) -> str:
    """Hash: an API key's name, scopes, limits, and the SHA-256 of its tokens, newest first. Kept for ever."""
    return f"{{vqd}}:key:{key_id}"


def stream(model: str, lane: str) -> str:
    """Stream of entries (job, priority). An entry leaves it only after a worker has read it; never by MAXLEN."""
    return f"{{vqd}}:stream:{model}:{lane}"


def dead(model: str) -> str:
    """Stream of jobs that lost too many workers, with the reason, for people to read: the last thousand of a week."""
    return f"{{vqd}}:dead:{model}"


def active(model: str, priority: Priority) -> str:
    """Sorted set: queued and running jobs of one class, by the time they were enqueued."""
    return f"{{vqd}}:active:{model}:{priority.value}"


def job(job_id: str) -> str:
    """Hash: the request and its state. Expires ``result_ttl_s`` after the end."""
    return f"{{vqd}}:job:{job_id}"


def events(job_id: str) -> str:
    """Stream of progress, ids are evaluation numbers. Expires with the job."""
    return f"{{vqd}}:events:{job_id}"


def images(job_id: str) -> str:
    """Hash: index → encoded image. Expires with the job."""
    return f"{{vqd}}:images:{job_id}"


def idempotency(key: str) -> str:
    """Hash: the job that this key made, and the SHA-256 of its payload. Expires after ``idempotency_ttl_s``."""
    return f"{{vqd}}:idempotency:{key}"
