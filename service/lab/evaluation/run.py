"""What ``vqd evaluate`` does: measure, and write the tables of what was measured."""

from collections.abc import Iterator
from pathlib import Path

from service.errors import SetupError
from service.lab.evaluation.evaluate import Painter, Sample, evaluate, read_records
from service.lab.evaluation.plots import plot_tables
from service.lab.evaluation.questions import QUICK, all_settings
from service.lab.evaluation.tables import Records, of_last_run, summary, write_tables

QUICK_SAMPLE = Sample(per_group=64, seeds=1)


def run_evaluation(
    model: Path, work: Path, out: Path, quick: bool, tables: bool, inception: Path | None
) -> Iterator[str]:
    """Yield a line per record, and the page's path. Raises SetupError for missing data."""
    page = out.with_suffix(".md")
    if not tables:
        if not (work / "data" / "pictures.npz").exists():
            raise SetupError(f"{work / 'data'} holds no pictures: run `vqd train data --work {work}` first")
        out.parent.mkdir(parents=True, exist_ok=True)
        painter = Painter(model, work / "repository", work / "null.safetensors")
        wanted = QUICK if quick else all_settings()
        settings = [setting for setting in wanted if painter.can(setting)]
        if len(settings) < len(wanted):
            yield f"without {work / 'null.safetensors'} (`vqd train null`): {len(wanted) - len(settings)} rows left out"
        sample = QUICK_SAMPLE if quick else Sample()
        for record in evaluate(painter, work / "data", out, settings, sample, inception):
            yield summary(record)
    records = of_last_run(read_records(out))
    if not records:
        raise SetupError(f"{out} holds no records: run `vqd evaluate --out {out}` first")
    write_tables(records, page)
    yield str(page)
    yield from map(str, plot_tables(Records(records), out.parent))
