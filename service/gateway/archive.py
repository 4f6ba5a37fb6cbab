"""All pictures of a job as one ZIP, a picture in memory at a time."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from service.messages import JobView
from service.provenance.names import file_name
from service.provenance.request import request_of
from service.queue.submissions import Submissions

MEDIA_TYPE = "application/zip"


class Window(io.BytesIO):
    """What was written and not taken yet. Positions are those of the whole, and one may go back in what is here: so
    sizes stand before the files, where everything that unpacks can read them."""

    taken = 0

    def tell(self) -> int:
        return self.taken + super().tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        within = position - self.taken if whence == io.SEEK_SET else position
        return self.taken + super().seek(within, whence)

    def take(self) -> bytes:
        data = self.getvalue()
        self.taken += len(data)
        super().seek(0)
        self.truncate(0)
        return data


async def archive(submissions: Submissions, view: JobView, first: bytes) -> AsyncIterator[bytes]:
    """The ZIP in parts; ``first``: the first picture. Not compressed: pictures are already.

    Raises NotFound, RedisUnavailable, StorageUnavailable in the middle: then the client has a ZIP without an end, which
    no one takes for a whole one.
    """
    window, data = Window(), first
    ended = datetime.fromtimestamp((view.finished_ms or 0) / 1000, UTC)
    with ZipFile(window, "w", ZIP_STORED) as whole:
        for info in view.result.images if view.result else ():
            if info.index:
                data = await submissions.image(view.job.id, info.index)
            name = file_name(request_of(view.job, info.index))
            whole.writestr(ZipInfo(name, max((1980, 1, 1, 0, 0, 0), ended.timetuple()[:6])), data)
            yield window.take()
    yield window.take()
