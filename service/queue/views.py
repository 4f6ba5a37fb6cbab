"""A job as its hash in Redis has it."""

import json
from collections.abc import Mapping
from typing import Any

from service.messages import Failure, Job, JobView, Result, Status
from service.queue.previews import PreviewsFor

PLAIN_FIELDS = (
    *("status", "epoch", "attempts", "evaluation", "evaluations", "committed"),
    *("started_ms", "finished_ms"),
)
VIEW_FIELDS = [*PLAIN_FIELDS, "created_ms", "job", "failure", "result", "owner", "changes", "preview"]


def read_view(row: Mapping[str, bytes]) -> JobView:
    """A job from the fields of its hash. Raises ValueError or KeyError for what this version cannot read."""
    job = Job.model_validate_json(row["job"]).model_copy(update={"created_ms": int(row["created_ms"])})
    result = Result.model_validate_json(row["result"]) if "result" in row else None
    if result and "changes" in row:  # by the worker that began it, which need not be the one that ended it
        changes = tuple(json.loads(row["changes"]))
        result = result.model_copy(update={"warnings": (*changes, *result.warnings)})
    failure = Failure.model_validate_json(row["failure"]) if "failure" in row else None
    plain = {name: row[name].decode() for name in (*PLAIN_FIELDS, "owner") if name in row}
    if plain["status"] not in set(Status):  # of a newer version: what matters is whether it is an end
        plain["status"] = Status.FAILED if "finished_ms" in row else Status.RUNNING
    missing: dict[str, Any] = {"started_ms": None, "finished_ms": None}
    missing["previews"] = row.get("preview") == PreviewsFor.EVERYBODY.encode()
    return JobView.model_validate({**missing, **plain, "job": job, "failure": failure, "result": result})
