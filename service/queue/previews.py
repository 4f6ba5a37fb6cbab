"""Small pictures of a job in progress: the newest of each lie in its hash, and go with its end."""

from enum import StrEnum

from service.messages import Record


class PreviewsFor(StrEnum):
    """Who sees them: those who follow the job and ask for them, or, as its request said, whoever follows it."""

    ASKERS = "askers"
    EVERYBODY = "everybody"


class Preview(Record):
    """Both files are PNGs in base64; ``purity_map``: grey, a pixel for each token, the brighter the surer."""

    index: int
    b64_png: str
    purity_map: str


class Shown(Record):
    """What lies in the hash."""

    pictures: tuple[Preview, ...]
