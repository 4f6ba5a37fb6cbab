"""What the client asks and when it asks again, without a service: the answers are written here."""

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from service.client.dialogue import LAST_TRY_S, LEAVE_S, Ask, Dialogue, Pause, Steps, wish_of
from service.client.pictures import place_of
from service.errors import InvalidRequest, NotFound, QueueFull, QuotaExceeded, Unavailable, VqdError

URL = "http://somewhere"
REFUSED = httpx.ConnectError("refused")
BROKEN = httpx.RemoteProtocolError("hung up")
Said = httpx.Response | httpx.RequestError


def answer(status: int = 200, json: Any = None, text: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = {"json": json} if json is not None else {"text": text}
    return httpx.Response(status, headers=named, request=httpx.Request("GET", URL), **content)


def problem(status: int, slug: str, **headers: str) -> httpx.Response:
    return answer(status, {"type": f"urn:vqd:problem:{slug}", "detail": "why"}, **headers)


def carried_out(steps: Steps[Any], answers: Iterable[Said]) -> tuple[Any, list[Ask | Pause]]:
    """What the steps come to, with these answers; and the steps themselves. Time passes only where it really does."""
    done: list[Ask | Pause] = []
    said: Iterator[Said] = iter(answers)
    step = next(steps)
    while True:
        done.append(step)
        told = next(said) if isinstance(step, Ask) else None
        try:
            step = steps.throw(told) if isinstance(told, Exception) else steps.send(told)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, done


def pauses(done: list[Ask | Pause]) -> list[float]:
    return [step.seconds for step in done if isinstance(step, Pause)]


def met() -> Dialogue:
    dialogue = Dialogue(URL)
    dialogue.met = True
    return dialogue


def test_a_lost_reply_is_asked_for_again_with_the_same_key() -> None:
    job, done = carried_out(met().submit(wish_of({"prompt": "x"})), [REFUSED, BROKEN, answer(202, {"id": "1"})])
    assert (job, pauses(done)) == ({"id": "1"}, [1, 1])
    asks = [step for step in done if isinstance(step, Ask)]
    assert len({ask.options["headers"]["Idempotency-Key"] for ask in asks}) == 1
    done = carried_out(met().submit(wish_of({"prompt": "x"})), [answer(202, {"id": "2"})])[1]
    assert done[0] != asks[0], "another request has another key"


def test_what_was_cut_short_is_asked_for_once_more_with_the_same_key_and_cancelled() -> None:
    wish = wish_of({"prompt": "x"})
    [first] = carried_out(met().submit(wish), [answer(202, {"id": "1"})])[1]
    _, [again, cancel] = carried_out(met().withdraw(wish), [answer(202, {"id": "1"}), answer(200, {"id": "1"})])
    assert isinstance(first, Ask)
    assert again == Ask("POST", "/generate", {**first.options, "timeout": LEAVE_S})
    assert cancel == Ask("DELETE", "/jobs/1", {"timeout": LEAVE_S})
    with pytest.raises(Unavailable):
        carried_out(met().withdraw(wish), [BROKEN])


def test_nobody_is_not_waited_for_but_who_is_slow_is() -> None:
    with pytest.raises(Unavailable, match=r"^no service answers at http://somewhere: refused$"):
        carried_out(Dialogue(URL).models(), [REFUSED])
    with pytest.raises(Unavailable, match=r"at http://localhost:1: refused; start one with `vqd up`$"):
        carried_out(Dialogue("http://localhost:1").models(), [REFUSED])
    for nameless, why in ((httpx.ConnectTimeout(""), "not in time"), (httpx.ConnectError(""), "ConnectError")):
        with pytest.raises(Unavailable, match=f"at http://somewhere: {why}$"):
            carried_out(Dialogue(URL).models(), [nameless])
    cards, done = carried_out(Dialogue(URL).models(), [httpx.ReadTimeout("slow"), answer(200, {"data": []})])
    assert (cards, pauses(done)) == ([], [1])


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_proxy_says_while_the_service_starts_again_is_waited_out(status: int) -> None:
    page = answer(status, text="<html>bad gateway")
    assert pauses(carried_out(met().look("1"), [page, page, answer(200, {"id": "1"})])[1]) == [1, 1]
    with pytest.raises(Unavailable, match=rf"http://somewhere answered {status}: <html>bad gateway"):
        carried_out(met().cancel("1"), [page])


def test_the_service_says_how_long_to_pause_and_what_takes_too_long_is_not_waited_for() -> None:
    full = problem(503, "queue-full", Retry_After="7")
    assert pauses(carried_out(met().models(), [full, answer(200, {"data": []})])[1]) == [7]
    with pytest.raises(QueueFull):
        carried_out(met().submit(wish_of({}), within_s=5), [full])
    with pytest.raises(QueueFull):
        carried_out(
            met().submit(wish_of({}), within_s=600), [problem(503, "queue-full", Retry_After=f"{LAST_TRY_S + 1:.0f}")]
        )


def test_a_limit_of_the_caller_s_is_waited_for_as_long_as_the_caller_wants() -> None:
    limit = problem(429, "quota-exceeded", Retry_After="40")
    with pytest.raises(QuotaExceeded) as refused:
        carried_out(met().submit(wish_of({})), [limit])
    assert refused.value.retry_after_s == 40
    job, done = carried_out(met().submit(wish_of({}), within_s=60), [limit, answer(202, {"id": "1"})])
    assert (job["id"], pauses(done)) == ("1", [40])
    with pytest.raises(QuotaExceeded, match="slow down"):
        carried_out(met().submit(wish_of({}), within_s=0), [answer(429, text="slow down")])


def test_what_is_wrong_is_not_asked_twice() -> None:
    body = {"type": "urn:vqd:problem:invalid-request", "detail": "", "errors": [{"field": "n", "message": "no"}]}
    with pytest.raises(InvalidRequest, match=r"^n: no$"):
        carried_out(met().submit(wish_of({})), [answer(422, body)])
    with pytest.raises(VqdError, match="does not answer: hung up"):
        carried_out(met().cancel("1"), [BROKEN])


def test_what_is_no_answer_of_the_service_is_shown() -> None:
    with pytest.raises(VqdError, match="answered 200: <html>log in"):
        carried_out(met().look("1"), [answer(200, text="<html>log in")])
    with pytest.raises(VqdError, match="answered 308 and leads to https://somewhere"):
        carried_out(met().look("1"), [answer(308, Location="https://somewhere")])


def test_a_service_of_the_version_before_names_no_requests() -> None:
    image = {"index": 0, "seed": 7, "tokens_sha256": "ab"}
    job = {"id": "1", "status": "succeeded", "images": [image], "parameters": {"format": "webp"}}
    pictures, _ = carried_out(met().pictures("1"), [answer(200, job), answer(200, text="file")])
    (picture,) = pictures.images
    assert (picture.name, picture.bytes, picture.request) == ("1-0.webp", b"file", {})


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ({"status": "failed"}, VqdError, "^job 1 failed: no reason given$"),
        ({"status": "failed", "error": "n: no", "error_type": "urn:vqd:problem:invalid-request"}, InvalidRequest, "n"),
        ({"status": "failed", "error": "x", "error_type": "urn:vqd:problem:new"}, VqdError, "job 1 failed: x"),
    ],
)
def test_why_there_are_no_pictures(told: dict[str, str], kind: type[VqdError], words: str) -> None:
    with pytest.raises(kind, match=words):
        carried_out(met().pictures("1"), [answer(200, {"id": "1"} | told)])


def test_what_a_proxy_or_a_newer_service_says_for_a_while_is_waited_out_as_long_as_it_says() -> None:
    found = answer(200, {"id": "1"})
    for busy in (
        answer(503, text="<html>", Retry_After="7"),
        answer(503, {"type": "about:blank", "detail": "busy"}, Retry_After="7"),
        problem(429, "newer-than-this", Retry_After="7"),
    ):
        assert pauses(carried_out(met().look("1"), [busy, found])[1]) == [7]
    for odd in ("Fri, 27 Nov 2026 09:00:00 GMT", "-5", "1.5", ""):
        assert pauses(carried_out(met().look("1"), [problem(503, "queue-full", Retry_After=odd), found])[1]) == [1]
        with pytest.raises(QueueFull, match=r"^why$"):
            carried_out(met().cancel("1"), [problem(503, "queue-full", Retry_After=odd)])


def test_an_end_is_kept_whatever_is_asked_for() -> None:
    dialogue = met()
    soon_s = time.monotonic() + 5
    image = {"index": 0, "seed": 7, "tokens_sha256": "ab"}
    told = answer(200, {"id": "1", "status": "succeeded", "images": [image], "parameters": {"format": "png"}})
    for steps, said in (
        (dialogue.submit(wish_of({}), until_s=soon_s), [answer(202, {"id": "1"})]),
        (dialogue.pictures("1", until_s=soon_s), [told, answer(text="file")]),
    ):
        for ask in carried_out(steps, said)[1]:
            assert isinstance(ask, Ask)
            assert 0 < ask.options["timeout"] <= 5
    with pytest.raises(QuotaExceeded):
        carried_out(
            dialogue.submit(wish_of({}), within_s=60, until_s=soon_s), [problem(429, "quota-exceeded", Retry_After="7")]
        )


@pytest.mark.parametrize("job_id", ["a/b", "../v1/models", "a?b", "a#b", "a\0", "\udcff", "."])
def test_what_is_no_id_of_a_job_leads_nowhere_else(job_id: str) -> None:
    with pytest.raises(NotFound):
        carried_out(met().look(job_id), [problem(404, "not-found")])
    path = httpx.URL(URL).join(place_of(job_id)).raw_path
    assert re.fullmatch(rb"/jobs/[\w%]+", path)
