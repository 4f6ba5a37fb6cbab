"""What a table says, as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from service.evaluation.tables import GUIDANCE, SPEED, Records, Table


def lines_of(table: Table, records: Records) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Line → (s or z, top-5 of all prompts in percent, Fréchet distance), for the settings that were measured."""
    axis = "guidance_scale" if table is GUIDANCE else "tokens_per_step"
    lines: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for label, chosen in table.rows:
        if chosen in records:
            x, found, distance = lines.setdefault(label.partition(", ")[2], ([], [], []))
            x.append(chosen.fields[axis])
            found.append(100 * float(records.both(chosen, 5).mean()))
            distance.append(records[chosen]["frechet"][0])
    return lines


def plot_tables(records: Records, folder: Path) -> list[Path]:
    """``quality-s.png`` and ``quality-z.png``."""
    paths = []
    for letter, table in (("s", GUIDANCE), ("z", SPEED)):
        figure = Figure(figsize=(8, 3), layout="constrained")
        found, distance = figure.subplots(1, 2)
        for name, (x, hits, distances) in lines_of(table, records).items():
            found.plot(x, hits, marker="o", label=name or "none needed")
            distance.plot(x, distances, marker="o", label=name or "none needed")
        found.set(xlabel=letter, ylabel="top-5 retrieval, %")
        distance.set(xlabel=letter, ylabel="Fréchet distance")
        for axis in (found, distance):
            axis.grid(alpha=0.3)
            if table is SPEED:
                axis.set_xscale("log", base=2)
            elif axis.lines:
                axis.legend()
        paths.append(folder / f"quality-{letter}.png")
        figure.savefig(paths[-1], dpi=80)
    return paths
