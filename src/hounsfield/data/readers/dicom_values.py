"""The values of a DICOM data set by name; what many slices share is converted once for all."""

from functools import lru_cache
from typing import Any, Final

from pydicom import Dataset
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import Tag

NAMES: Final = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer", "PatientID",
    "PatientSex", "PatientAge", "ContrastBolusAgent", "ConvolutionKernel", "StudyInstanceUID",
    "SeriesInstanceUID", "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""All that is asked of a header."""

_TAGS = {name: Tag(name) for name in NAMES}
_BY_CONTEXT = {"PixelPaddingValue", "PixelPaddingRangeLimit"}  # their type is another element's say
_REMEMBERED = 4096  # values; a slice brings a handful that its neighbours do not have
_LONGEST = 256  # bytes of a value that is remembered; sequences of an enhanced CT have millions


class Values:
    """A data set, of which values are asked as of a dictionary."""

    def __init__(self, ds: Dataset) -> None:
        self.ds = ds
        encodings = ds.original_character_set
        self.encodings = (encodings,) if isinstance(encodings, str) else tuple(encodings)

    def __contains__(self, name: str) -> bool:
        return _TAGS[name] in self.ds

    def get(self, name: str, default: Any = None) -> Any:
        """The value of that name, `default` where there is none."""
        tag = _TAGS[name]
        element = self.ds.get_item(tag)
        if element is None:
            return default
        if (
            not isinstance(element, RawDataElement)
            or name in _BY_CONTEXT
            or name.endswith("Sequence")
            or element.length > _LONGEST
        ):
            return self.ds[tag].value
        return _converted(element._replace(value_tell=0), self.encodings)


def many(value: Any) -> list[Any]:
    """A value as the list that it may have been; empty where there is none."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


@lru_cache(_REMEMBERED)
def _converted(element: RawDataElement, encodings: tuple[str, ...]) -> Any:
    return convert_raw_data_element(element, encoding=list(encodings)).value
