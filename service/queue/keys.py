"""Every Redis key. All share the hash tag {vqd}, so that one script may touch several of them on a cluster too.

Lifetimes: a job's keys live for ever while it is queued or running (it must not be lost, however long it waits), and
``result_ttl_s`` after it ended; an idempotency key lives ``idempotency_ttl_s``, longer than the result, so that a very
late retry still does not run twice; registrations expire by their own time; streams, orders and counters stay, and so
do API keys, revoked ones too.
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


WEBHOOKS = "{vqd}:webhooks"
"""Sorted set: job → when its webhook is to be delivered, ms, or the lease of who does that ends; of a job that has not
ended, when to look whether it has."""


def api_key(key_id: str) -> str:
    """Hash: an API key's name, scopes, limits, and the SHA-256 of its tokens, newest first. Kept for ever."""
    return f"{{vqd}}:key:{key_id}"


def stream(model: str, lane: str) -> str:
    """Stream of entries (job, priority, rows): jobs that a worker has read, until they end; never trimmed by MAXLEN.

    The hand-over's also has those that are to be read again.
    """
    return f"{{vqd}}:stream:{model}:{lane}"


def order(model: str, lane: str) -> str:
    """Sorted set: jobs that no worker has read, by their turn. Whoever reads one puts it into the lane's stream."""
    return f"{{vqd}}:order:{model}:{lane}"


def turns(model: str, lane: str) -> str:
    """Sorted set: owner → its next turn, as long as that is to come, and ``@now`` → the turn of the last job read."""
    return f"{{vqd}}:turns:{model}:{lane}"


def bell(model: str) -> str:
    """Stream of one entry: rung at each job that may be read, for workers that wait."""
    return f"{{vqd}}:bell:{model}"


def owner_jobs(owner: str) -> str:
    """Sorted set: queued and running jobs of an API key, or of all who need none, by the time they came.

    The scripts make this key, and the next two, themselves: they find the owner in the job.
    """
    return f"{{vqd}}:owner:{owner}:jobs"


def owner_ended(owner: str) -> str:
    """Sorted set: "job bytes" → when the job and its pictures expire, ms. Expires with the last of them."""
    return f"{{vqd}}:owner:{owner}:ended"


def owner_used(owner: str) -> str:
    """Hash: ``bytes`` of all those pictures; ``spent_until_ms``: when its cost is forgotten. Expires when both are."""
    return f"{{vqd}}:owner:{owner}:used"


def owner_webhooks(owner: str) -> str:
    """Sorted set: jobs whose webhooks are to be delivered, by when they came or ended, ms. Expires after a week."""
    return f"{{vqd}}:owner:{owner}:webhooks"


def webhook(job_id: str) -> str:
    """Hash: a copy of the job at its end, and ``webhook_attempt``. Goes with the answer; expires after a week."""
    return f"{{vqd}}:webhook:{job_id}"


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
    """Hash: index → encoded image, of each that S3 storage does not have. Expires with the job."""
    return f"{{vqd}}:images:{job_id}"


def idempotency(key: str) -> str:
    """Hash: the job that this key made, and the SHA-256 of its payload. Expires after ``idempotency_ttl_s``."""
    return f"{{vqd}}:idempotency:{key}"
