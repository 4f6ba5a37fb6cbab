"""Records that another process wrote: in a rollout it may be of a version that this one does not know."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from service.errors import OtherVersion
from service.messages import complaints

log = logging.getLogger(__name__)

FAULTS_KEPT = 1000
"""So many different faults are logged once each; those beyond are only counted."""


class Records:
    """What a process reads from Redis. ``on_unreadable`` is told the kind of every record that cannot be read."""

    def __init__(self, on_unreadable: Callable[[str], None] = lambda kind: None) -> None:
        self.on_unreadable = on_unreadable
        self.logged: set[tuple[str, str]] = set()

    @contextmanager
    def reading(self, kind: str, name: str) -> Iterator[None]:
        """Whatever is wrong with the record is OtherVersion, counted, and logged the first time. No values: a record
        may hold a prompt."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            fault = complaints(error) if isinstance(error, ValidationError) else f"{type(error).__name__} {error}"
            self.note(kind, name, fault)
            raise OtherVersion(f"{kind} {name} is a record of another version of the service") from error

    def note(self, kind: str, name: str, fault: str) -> None:
        self.on_unreadable(kind)
        if (kind, fault) not in self.logged and len(self.logged) < FAULTS_KEPT:
            self.logged.add((kind, fault))
            log.error("%s %s cannot be read by this version of the service: %s", kind, name, fault)
