"""What ``vqd evaluate`` does: measure, and write the tables of what was measured."""

from collections.abc import Iterator
from pathlib import Path

from service.errors import SetupError
from service.export.precision import Precision
from service.lab.evaluation.cost import stages, write_cost
from service.lab.evaluation.evaluate import Painter, Sample, evaluate, read_records
from service.lab.evaluation.plots import plot_tables
from service.lab.evaluation.questions import QUICK, all_settings
from service.lab.evaluation.tables import Records, of_last_run, summary, write_tables

QUICK_SAMPLE = Sample(per_group=64, seeds=1)
HELD_OUT = 306
"""Every prompt that training never saw in its style: differences are known to within 2 points then, or 1."""


def painter_for(model: Path, work: Path, dtype: str) -> Painter:
    """Raises SetupError for missing data."""
    if not (work / "data" / "pictures.npz").exists():
        raise SetupError(f"{work / 'data'} holds no pictures: run `vqd train data --work {work}` first")
    return Painter(model, work / "repository", work / "null.safetensors", dtype)


def run_evaluation(
    model: Path,
    work: Path,
    out: Path,
    quick: bool,
    tables: bool,
    inception: Path | None,
    dtype: str = Precision.AUTO,
) -> Iterator[str]:
    """Yield a line per record, and the page's path. Raises SetupError for missing data."""
    page = out.with_suffix(".md")
    if not tables:
        painter = painter_for(model, work, dtype)
        out.parent.mkdir(parents=True, exist_ok=True)
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


def run_cost(model: Path, work: Path, out: Path, tables: bool, dtype: str = Precision.AUTO) -> Iterator[str]:
    """The same for quality against cost, in records, a section and a plot of their own beside ``out``.

    Records of both dtypes go into one file, and so into one section.
    """
    path, picture = (out.with_name(f"{out.stem}-cost{suffix}") for suffix in (".jsonl", ".png"))
    if not tables:
        painter = painter_for(model, work, dtype)
        out.parent.mkdir(parents=True, exist_ok=True)
        for seeds, settings in stages(painter.info.dtype).items():
            for record in evaluate(painter, work / "data", path, settings, Sample(HELD_OUT, seeds)):
                yield summary(record)
    records = read_records(path)
    if not records:
        raise SetupError(f"{path} holds no records: run `vqd evaluate --cost --out {out}` first")
    write_cost(records, out.with_suffix(".md"), picture)
    yield from map(str, (out.with_suffix(".md"), picture))
