"""``python -m service.local.probe URL``: status 0 when it answers 200, for images without curl. Standard library only.

Variables in the URL, such as ``${VQD_PORT}``, are filled in here: a health check then needs no shell.
"""

import sys
from http.client import HTTPConnection, HTTPException
from os.path import expandvars
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def probe(url: str) -> str | None:
    """Why ``url`` is not well; None when it is. Goes there directly: a probe of one's own port needs no proxy."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"{url}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if response.status == 200 else f"{url}: {response.status} {body}"


if __name__ == "__main__":
    sys.exit(probe(expandvars(sys.argv[1])))
