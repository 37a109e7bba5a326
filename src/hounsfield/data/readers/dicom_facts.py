"""What DICOM headers say of a series that names nobody: free text is cut to what is a code."""

import re
from typing import Any

from hounsfield.data.readers.dicom_values import Values, many
from hounsfield.data.volume import Facts

_VENDORS = (
    "GE", "Siemens", "Philips", "Toshiba", "Canon", "Hitachi", "Fujifilm", "Neusoft", "Shimadzu",
    "Picker", "Imatron", "Samsung", "Mediso", "NeuroLogica", "United Imaging", "hounsfield",
)  # fmt: skip


def facts_of(ds: Values) -> Facts:
    """Vendor, kernel, contrast, sex and age, reduced to what cannot name anybody."""
    manufacturer = str(ds.get("Manufacturer") or "")
    vendor = next(
        (name for name in _VENDORS if name.lower() in manufacturer.lower()),
        "other" if manufacturer.strip() else "",
    )
    sex = str(ds.get("PatientSex") or "").strip().upper()
    age = str(ds.get("PatientAge") or "").strip().upper()
    if not re.fullmatch(r"\d{3}[DWMY]", age):
        age = ""
    elif age.endswith("Y") and int(age[:3]) > 89:
        age = "090Y"  # the oldest are few enough to be found by their age
    return Facts(
        vendor=vendor,
        kernel=kernel_of(ds.get("ConvolutionKernel")),
        contrast="yes" if str(ds.get("ContrastBolusAgent") or "").strip() else "",
        sex=sex if sex in ("F", "M", "O") else "",
        age=age,
    )


def kernel_of(value: Any) -> str:
    """The convolution kernel, as far as it is a code; of several, those with slashes between."""
    return "/".join(word for one in many(value) if (word := code(str(one))))


def code(text: str) -> str:
    """`text` if it looks like a code, else nothing: free text may name somebody."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+.\-]{0,15}", text) else ""
