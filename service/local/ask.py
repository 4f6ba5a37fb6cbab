"""``python -m service.local.ask HOST:PORT SECONDS``: status 0 when Triton there answers a real inference of each model.

As a process: a supervisor that forks has no room for gRPC's threads, and it must not wait for a Triton that hangs.
"""

import sys

from service.triton.client import serves

if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1], float(sys.argv[2])) else 1)
