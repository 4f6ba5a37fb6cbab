"""``make fuzz``: schemathesis asks what our OpenAPI document allows, and what it does not, and checks every answer.

A real gateway, worker and Redis as processes; Triton is the shipped fake. Ends with status 1 when an answer is a server
error, or is not as the document promises. ``tests/integration/test_document.py`` is the short form.

``--keys``: ``free``, a service that asks for none; ``with``, one that does, and the fuzzer has one; ``without``, the
same and it has none, so that only what is open may answer.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from fleet import Fleet, serving

from service.gateway.access.tokens import mint
from service.local.redis import RedisServer

KEYS = ("free", "with", "without")
CHECKS = Path(__file__).parent / "integration" / "fuzz_checks.py"
WEBHOOKS = {"webhook_secret": "whsec_" + "c2VjcmV0" * 4, "webhook_hosts": "localhost"}
"""Wanted, or no URL would be looked at; and to one name only, or strange ones would be looked up."""
EXCEPT = "positive_data_acceptance,use_after_free"
"""Ours takes the place of the one. The other takes DELETE for an end of the job: it may be read afterwards."""


def fuzz(url: str, folder: Path, seed: int, *amount: str) -> subprocess.CompletedProcess[str]:
    """Every check on the document at ``url``; ``amount``: options of schemathesis that say how much. Writes to
    ``folder`` only."""
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    command += ["--checks", "all", "--exclude-checks", EXCEPT, "--continue-on-failure", "--seed", str(seed), *amount]
    command += ["--request-timeout", "60", "--suppress-health-check", "all"]  # a busy machine is no fault of ours
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(CHECKS), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [*command, f"{url}/openapi.json"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keys", choices=KEYS, default=KEYS[0])
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vqd-fuzz-") as name, RedisServer(Path(name) / "redis") as redis:
        token, path = mint().token, Path(name) / "keys"
        path.write_text(token)
        asked = {} if told.keys == "free" else {"key_file": path}
        shown = ["--header", f"Authorization: Bearer {token}"] if told.keys == "with" else []
        fleet = Fleet(redis.url, Path(name) / "fleet", lease_ms=5000, call_target_ms=50, **WEBHOOKS, **asked)
        try:
            fleet.start_worker()
            with serving(fleet) as client:
                limit = f"--max-time={60 * told.minutes:.0f}"
                done = fuzz(str(client.base_url), Path(name), told.seed, limit, *shown)
        finally:
            fleet.close()
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
