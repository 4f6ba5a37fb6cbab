"""What is known of a job."""

from service.client.answers import Answer
from service.client.events import Event
from service.messages import Status


class JobFacts:
    """As the service at ``place`` described it last, in ``answer``; events bring its progress up to date."""

    def __init__(self, answer: Answer, place: str) -> None:
        self.answer, self.place = answer, place

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        return str(self.answer["id"])

    @property
    def status(self) -> Status:
        return Status(self.answer["status"])

    @property
    def over(self) -> bool:
        return self.status.terminal

    @property
    def ahead(self) -> int | None:
        """Jobs that go first, while it waits."""
        return self.answer.get("ahead")

    @property
    def estimate_s(self) -> float | None:
        """Seconds that those take, while it waits; None where nobody knows."""
        return self.answer.get("estimate_s")

    def note(self, event: Event) -> None:
        told = event.model_dump(include={"status", "evaluation", "evaluations", "committed"}, mode="json")
        self.answer = {**self.answer, **told}
