"""The logs of real processes: JSON lines that carry the ids from the request to the worker's last word of the job."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, serving
from gateway_harness import until

ALWAYS = {"ts", "level", "logger", "message"}


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(redis_url, tmp_path)
    started.start_worker()
    yield started
    started.close()


def lines_of(fleet: Fleet, name: str, job_id: str) -> list[dict[str, Any]]:
    return [line for line in fleet.log_lines(name) if line.get("job_id") == job_id]


def test_lines_are_json_and_carry_the_ids(fleet: Fleet) -> None:
    with serving(fleet) as client:
        headers = {"X-Request-Id": "from-the-client"}
        job_id = client.post("/generate", json={"prompt": "a red circle"}, headers=headers).json()["id"]
        client.get(f"/jobs/{job_id}")
        (posted, asked) = until(lambda: len(lines := lines_of(fleet, "gateway", job_id)) == 2 and lines)
        worked = until(lambda: len(lines := lines_of(fleet, "worker-1", job_id)) == 2 and lines)
    assert (posted["request_id"], posted["status"], posted["route"]) == ("from-the-client", 200, "/generate")
    assert 0 < posted["seconds"] < 30
    assert asked["request_id"] not in ("", "from-the-client")
    assert [line["message"] for line in worked] == ["job begins", "job succeeded"]
    assert {line["request_id"] for line in worked} == {"from-the-client"}
    lines = fleet.log_lines("gateway") + fleet.log_lines("worker-1")
    assert all(line.keys() >= ALWAYS for line in lines)
    assert "uvicorn.error" in {line["logger"] for line in lines}


def test_no_prompt_is_logged_not_even_a_wrong_one(fleet: Fleet) -> None:
    """The fleet's model takes 16 tokens; the answer may quote the prompt, the log may not."""
    prompts = {"zebra at noon": 200, "zebra " * 17: 422}
    with serving(fleet) as client:
        for prompt, status in prompts.items():
            response = client.post("/generate", json={"prompt": prompt, "negative_prompt": "zebra"})
            assert response.status_code == status, response.text
        job_id = response.headers["X-Vqd-Job-Id"]
        (failed, _) = until(lambda: len(lines := lines_of(fleet, "worker-1", job_id)) == 2 and lines)
    assert (failed["level"], failed["message"]) == ("WARNING", "job fails: prompt is not valid")
    assert "zebra" in response.json()["detail"]
    assert "zebra" not in repr(fleet.log_lines("gateway") + fleet.log_lines("worker-1"))


def test_text_for_people(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path, log_format="text")
    try:
        fleet.start_worker()
        with serving(fleet) as client:
            headers = {"X-Request-Id": "from-the-client"}
            job_id = client.post("/generate", json={"prompt": "a red circle"}, headers=headers).json()["id"]
            client.get("/line%0Abreak")
        until(lambda: " GET /line%0Abreak " in (tmp_path / "gateway.log").read_text())
        until(lambda: f"job succeeded request_id=from-the-client job_id={job_id}\n" in fleet.logs())
        assert "{" not in fleet.logs()
    finally:
        fleet.close()
