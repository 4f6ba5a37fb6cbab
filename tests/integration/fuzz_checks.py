"""What schemathesis is told of this service. It loads this file itself: it is not for pytest."""

import re

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

BEYOND_THE_DOCUMENT = re.compile(
    b"was used with another request"  # an Idempotency-Key
    b"|at most [0-9]+ are allowed; shorten it|must be at most"  # of the model: word pieces of a prompt, steps
    b"|knows nothing of it"  # of its words
    b"|sends no webhooks|its host|its port|must be a URL|must have no user"  # of the operator, and of the network
    b"|pictures would be number"  # of the largest image_index that there is, several pictures
    b"|give one for each"  # of a request's evaluations
    b"|cannot be made of|is not the same as|needs stream|has the pictures in it|png does not"  # of the Images API
    b"|is no base64|is no picture|needs image|needs mask|is another file"  # of a picture
    b"|whole numbers from 0 to [0-9]+, or -1"  # of the model: how many codes, and which
)


@schemathesis.check
def valid_data_is_accepted(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """schemathesis' own check, but for what no document can say."""
    if not BEYOND_THE_DOCUMENT.search(response.content):
        positive_data_acceptance(ctx, response, case)
