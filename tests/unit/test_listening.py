"""How the client follows a job, without a service: what it hears is written here."""

import json

import httpx
import pytest
from httpx_sse import ServerSentEvent

from service.client.job import JobFacts
from service.client.listening import Listening
from service.errors import NotFound, StillRunning, Unavailable, VqdError

PLACE = "http://somewhere"
USUAL_S = 30.0
RETRY = ServerSentEvent(event="message", data="", id="", retry=1000)


def job() -> JobFacts:
    return JobFacts({"id": "1", "status": "queued"}, PLACE)


def event(evaluation: int, status: str = "running", **more: object) -> ServerSentEvent:
    told = {"evaluation": evaluation, "evaluations": 4, "committed": 0.5, "status": status, **more}
    return ServerSentEvent(event="progress", data=json.dumps(told), id=f"{evaluation}-0")


def answer(status: int, text: str = "", kind: str = "text/event-stream") -> httpx.Response:
    return httpx.Response(status, text=text, headers={"Content-Type": kind}, request=httpx.Request("GET", PLACE))


def test_the_next_connection_begins_behind_what_was_heard() -> None:
    listening = Listening(job())
    assert listening.connection(USUAL_S)["headers"]["Last-Event-ID"] == ""
    assert listening.hear(RETRY) is None
    heard = listening.hear(event(3))
    assert heard
    assert heard.evaluation == 3
    options = listening.connection(USUAL_S)
    assert (options["headers"]["Last-Event-ID"], options["timeout"]) == ("3-0", USUAL_S)
    assert "params" not in options
    assert not listening.over
    listening.hear(event(4, "failed"))
    assert (listening.over, listening.pause_s()) == (True, 0)
    assert (listening.job.status, listening.job.answer["evaluation"]) == ("failed", 4), "it took note"


@pytest.mark.parametrize(("previews", "asked"), [(True, "true"), ("purity", "purity")])
def test_previews_are_asked_for_and_decoded(previews: bool, asked: str) -> None:
    listening = Listening(job(), previews)
    assert listening.connection(USUAL_S)["params"] == {"preview": asked}
    heard = listening.hear(event(1, previews=[{"index": 2, "b64_png": "cGl4ZWxz", "purity_map": "bWFw"}]))
    assert heard
    (preview,) = heard.previews
    assert (heard.preview, preview.index, preview.purity_map) == (b"pixels", 2, b"map")
    assert "pixels" not in repr(heard)


def test_an_event_of_a_later_version_is_passed_over() -> None:
    listening = Listening(job())
    assert listening.hear(event(1, "thinking")) is None
    assert listening.hear(ServerSentEvent(event="progress", data="{", id="9-9")) is None
    assert listening.connection(USUAL_S)["headers"]["Last-Event-ID"] == ""


def test_what_is_no_stream_ends_it() -> None:
    listening = Listening(job())
    listening.accept(answer(200))
    assert not listening.over
    with pytest.raises(VqdError, match="answered 200: <html>log in"):
        listening.accept(answer(200, "<html>log in", "text/html"))
    with pytest.raises(NotFound, match="no job"):
        listening.accept(answer(404, '{"type": "urn:vqd:problem:not-found", "detail": "no job 1"}', "application/json"))
    listening.accept(answer(204, kind=""))
    assert listening.over, "nothing more will come"


def test_who_is_gone_for_too_long_is_given_up_and_a_sign_of_life_begins_it_anew() -> None:
    listening = Listening(job())
    assert listening.pause_s() == 1
    listening.lost_s = listening.began_s - 31
    with pytest.raises(Unavailable, match="sent no event of job 1 for 30 s"):
        listening.pause_s()
    listening.hear(RETRY)
    assert listening.pause_s() == 1


def test_a_long_quiet_wait_is_no_loss() -> None:
    listening = Listening(job())
    listening.began_s -= 3600
    listening.hear(event(1))
    assert listening.pause_s() == 1


def test_no_connection_is_made_for_longer_than_there_is_time() -> None:
    listening = Listening(job(), timeout_s=40)
    assert listening.connection(USUAL_S)["timeout"] == USUAL_S
    listening.began_s -= 5
    assert not listening.stale
    listening.began_s -= 10
    assert listening.stale, "25 s are left, and it may be silent for 30"
    assert listening.pause_s() == 0
    assert 24 < listening.connection(USUAL_S)["timeout"] <= 25
    assert not listening.stale
    listening.began_s -= 25
    with pytest.raises(StillRunning, match=r"^job 1 is not done after 40 s$"):
        listening.pause_s()
