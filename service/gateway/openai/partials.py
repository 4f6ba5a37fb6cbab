"""Which of a job's previews become partial pictures of a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from service.gateway.feeds import Feed
from service.messages import Status
from service.queue.previews import Preview


@dataclass
class Partials:
    """At most ``most`` of each picture, spread over the job's way: the k-th goes out when k / (``most`` + 1) of the
    evaluations are done, and is the newest preview that there is then. A picture of which none went out is shown so at
    the end: the job was quick.
    """

    most: int
    sent: dict[int, list[Preview]] = field(default_factory=dict)

    def new(self, feed: Feed) -> Iterator[tuple[int, Preview]]:
        """What is to be sent now: how many of that picture came before, and the preview."""
        for preview in feed.previews:
            before = self.sent.setdefault(preview.index, [])
            if len(before) < self.due(feed) and preview not in before[-1:]:
                before.append(preview)
                yield len(before) - 1, preview

    def due(self, feed: Feed) -> int:
        """How many partial pictures of each there should have been by now."""
        match feed.newest:
            case None:
                return 0
            case event if event.status is Status.RUNNING:
                return min(self.most, event.evaluation * (self.most + 1) // event.evaluations)
            case event:
                return min(self.most, 1 if event.status is Status.SUCCEEDED else 0)
