"""Every Lua script with the names of its keys and arguments, for both sides: Python gives them by name, Lua has them
as locals.

A script's keys are locals in capitals (``job`` is ``JOB``), its arguments locals of their own name. What may be left
out stands last and is nil then; ``rest`` is a list of all that follows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar

Argument = str | bytes | int | float
A = TypeVar("A")
FOLDER = files("service.queue") / "scripts"


@dataclass(frozen=True)
class ScriptCall:
    """What one run of a script is given, in the script's order."""

    keys: Sequence[str]
    arguments: Sequence[Argument]


@dataclass(frozen=True)
class Script:
    """``front``: the files, besides its own, that stand in front of it."""

    name: str
    keys: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    rest_keys: str = ""
    rest: str = ""
    front: tuple[str, ...] = ()

    def source(self) -> str:
        """The text that Redis gets."""
        names = [
            *local_names("KEYS", self.keys, self.rest_keys, str.upper),
            *local_names("ARGV", self.arguments, self.rest),
        ]
        files = [FOLDER / f"{file}.lua" for file in (*self.front, self.name)]
        return "\n".join([*names, *(file.read_text(encoding="utf-8") for file in files)])

    def call(
        self,
        keys: Mapping[str, str],
        arguments: Mapping[str, Argument] | None = None,
        rest_keys: Iterable[str] = (),
        rest: Iterable[Argument] = (),
    ) -> ScriptCall:
        """One run. Raises ValueError for a name that it does not have, or one missing before another."""
        return ScriptCall(
            [*in_order(self.name, self.keys, keys), *rest_keys],
            [*in_order(self.name, self.arguments, arguments or {}), *rest],
        )


def local_names(table: str, names: Sequence[str], rest: str, case: Callable[[str], str] = str) -> list[str]:
    """Lua declarations of a table's entries by name."""
    lines = [f"local {case(name)} = {table}[{place}]" for place, name in enumerate(names, start=1)]
    return [*lines, f"local {case(rest)} = {{unpack({table}, {len(names) + 1})}}"] if rest else lines


def in_order(script: str, names: Sequence[str], given: Mapping[str, A]) -> list[A]:
    values = [given[name] for name in names[: len(given)] if name in given]
    if len(values) != len(given):
        raise ValueError(f"{script}.lua takes {', '.join(names)}; given: {', '.join(given)}")
    return values


def job_script(
    name: str,
    keys: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    rest: str = "",
    front: tuple[str, ...] = ("room", "common"),
) -> Script:
    """A script about one job, as common.lua needs it."""
    about = ("job", "events", "active", "channel", "counters", "stream", "order", "turns")
    return Script(name, (*about, *keys), ("id", "result_ttl_s", *arguments), rest=rest, front=front)


ENQUEUE = job_script(
    "enqueue",
    ("other_active", "bell", "idempotency"),
    (
        *("record", "evaluations", "priority", "rows", "deadline_ms", "capacity", "payload", "idempotency_ttl_s"),
        *("owner", "weight", "cost", "cost_per_minute", "most_jobs", "most_bytes", "webhook", "unsure_ms", "preview"),
        *("image", "mask"),
    ),
    front=("common", "quota"),
)
CANCEL = job_script("cancel", arguments=("unknown",))
LATE = job_script("late", arguments=("lease_ms",))
CLAIM = job_script(
    "claim",
    ("dead",),
    ("entry", "worker", "claim", "max_attempts", "lost"),
    front=("room", "common", "letters"),
)
PROGRESS = job_script(
    "progress",
    arguments=("epoch", "entry", "checkpoint", "trial", "evaluation", "evaluations", "committed", "status", "detail"),
)
SHOW = job_script("show", arguments=("epoch", "entry", "previews"))
PREVIEW = Script("preview", ("job",), ("whose",), front=("room",))
ADAPT = job_script("adapt", arguments=("epoch", "entry", "record", "evaluations", "changes"))
FINISH = job_script("finish", ("images",), ("epoch", "entry", "status", "failure", "result", "bytes"), rest="files")
RELEASE = job_script("release", ("handover", "bell"), ("epoch", "entry", "priority", "rows", "checkpoint", "blame"))
READ = Script(
    "read",
    ("patient", "bell"),
    ("group", "worker", "room", "reserve", "held"),
    rest_keys="lanes",
    front=("room", "entries"),
)
RECOVER = Script(
    "recover",
    arguments=("group", "worker", "room", "lease_ms"),
    rest_keys="streams",
    rest="ours",
    front=("room", "entries"),
)
DISCARD = Script(
    "discard",
    ("stream", "dead"),
    ("group", "entry", "reason", "record"),
    front=("room", "letters"),
)
OLDEST = Script("oldest", arguments=("group",), rest_keys="lanes", front=("entries",))
WORKERS = Script("workers", ("workers", "until"), ("worker", "record", "ttl_ms"), front=("room",))
LIST = Script("list", ("jobs", "ended"), ("after", "limit", "result_ttl_s"))
PLACE = Script("place", ("order", "turns", "first_order", "first_turns"), ("id",))
PREPARE = Script("prepare", ("stream",), ("group", "idle_ms"), front=("room",))
CLAIM_WEBHOOK = Script(
    "webhook_claim", ("due", "prefix", "jobs"), ("lease_ms", "busy", "passed"), rest="fields", front=("room",)
)
SETTLE_WEBHOOK = Script("webhook_settle", ("due", "record", "own"), ("id", "attempt", "again_ms"), front=("room",))
FIND_KEY = Script("key_find", ("ids", "secrets", "prefix"), ("digest", "touch_ms"), front=("room", "key_common"))
CREATE_KEY = Script(
    "key_create",
    ("ids", "secrets", "key"),
    ("id", "digest", "ttl_ms"),
    rest="fields",
    front=("key_common",),
)
ROTATE_KEY = Script("key_rotate", ("secrets", "key"), ("id", "digest", "overlap_ms"), front=("room", "key_common"))
REVOKE_KEY = Script("key_revoke", ("key",), front=("room", "key_common"))
OF_JOBS = (ENQUEUE, CANCEL, LATE, CLAIM, PROGRESS, ADAPT, FINISH, RELEASE, READ, RECOVER, DISCARD, OLDEST, LIST, PLACE)
OF_PREVIEWS, OF_WEBHOOKS = (SHOW, PREVIEW), (CLAIM_WEBHOOK, SETTLE_WEBHOOK)
ALL = (*OF_JOBS, *OF_PREVIEWS, *OF_WEBHOOKS, WORKERS, PREPARE, FIND_KEY, CREATE_KEY, ROTATE_KEY, REVOKE_KEY)
