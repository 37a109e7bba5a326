"""A phantom patient: who it is and what was scanned of it."""

from dataclasses import dataclass

from hounsfield.data.phantom.head import head
from hounsfield.data.phantom.scan import Scan
from hounsfield.data.phantom.trunk import trunk
from hounsfield.seeding import stream


@dataclass(frozen=True)
class Patient:
    """A phantom patient: number, sex, age and the two scans."""

    number: int
    sex: str
    age: int
    scans: tuple[Scan, Scan]

    @property
    def name(self) -> str:
        """What stands for it in files and folders."""
        return f"PHANTOM-{self.number:04d}"

    @property
    def bleeds(self) -> bool:
        """Whether any slice shows a bleed."""
        return any(1 in scan.bleed for scan in self.scans)


def draw_patient(number: int, seed: int) -> Patient:
    """Patient `number` of the phantom world of `seed`."""
    rng = stream(seed, "phantom", number)
    return Patient(
        number=number,
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(25, 86)),
        scans=(head(rng), trunk(rng)),
    )
