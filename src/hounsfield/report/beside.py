"""What lies beside the page: figures for print, tables for papers and programs, the methods."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import vl_convert

from hounsfield.files import sweep, write_parquet, write_text, write_whole
from hounsfield.progress import bar
from hounsfield.report import latex
from hounsfield.report.drawing import VEGA_LITE, Figure
from hounsfield.report.methods import methods
from hounsfield.report.study_folder import Study

FILES = {"level": "values", "labels_saved": "labels_saved"}  # names that are no kind's plural
BESIDE = ("results.parquet", "methods.md")
PPI = 300  # of the PNGs; a figure is 420 px of 1/72 inch wide


def write_beside(study: Study, figures: Sequence[Figure], out: Path) -> None:
    """Write `figures/`, `tables/`, `results.parquet` and `methods.md` into `out`.

    Raises:
        DiskError: `out` cannot be written.
    """
    for folder in (out / "figures", out / "tables"):
        sweep(folder)
    with bar("figures", total=len(figures)) as progress:
        for figure in figures:
            for kind, content in drawn(figure):
                write_whole(out / "figures" / f"{figure.name}.{kind}", content)
            progress.advance()
    for kind, table in tables(study.results):
        name = FILES.get(kind, f"{kind}s")
        write_text(out / "tables" / f"{name}.csv", table.write_csv())
        write_parquet(out / "tables" / f"{name}.parquet", table)
        write_text(out / "tables" / f"{name}.tex", latex.long(study, kind))
    write_text(out / "tables" / "label_curves.tex", latex.wide(study))
    write_parquet(out / "results.parquet", study.results)
    write_text(out / "methods.md", methods(study, figures))


def drawn(figure: Figure) -> Iterator[tuple[str, bytes]]:
    """A figure as SVG, PDF and PNG: kind and content."""
    svg = vl_convert.vegalite_to_svg(figure.spec, vl_version=VEGA_LITE)
    yield "svg", svg.encode()
    yield "pdf", vl_convert.svg_to_pdf(svg)
    yield "png", vl_convert.svg_to_png(svg, ppi=PPI)


def tables(results: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each kind of number, and its table with the columns that say something."""
    for kind in results["kind"].drop_nulls().unique(maintain_order=True):
        rows = results.filter(pl.col("kind") == kind)
        empty = [name for name in rows.columns if rows[name].null_count() == len(rows)]
        yield kind, rows.drop("kind", *empty)
