"""What several verbs take alike."""

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[Path], typer.Argument(metavar="SOURCE", help="Folders, files and zip archives.")
]
Key = Annotated[
    Path | None,
    typer.Option(help="The file of the key that hides identities (default: one a user)."),
]
KeepIds = Annotated[
    bool, typer.Option("--keep-ids", help="Keep identities as they are: nothing is hidden.")
]
Workers = Annotated[int, typer.Option(help="Reading processes.")]
Jobs = Annotated[
    int,
    typer.Option(min=1, help="How many cells run side by side; on the CPU pre-trainings too."),
]
PatientPattern = Annotated[
    str | None,
    typer.Option(help="A regular expression on a file's path: its group is the patient."),
]
