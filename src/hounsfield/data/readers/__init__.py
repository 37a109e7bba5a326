"""A reader a kind of file, by its name: headers or entries in, volumes out.

- `dicom`: `dicom_headers` tell what a slice is before its pixels are read, by `dicom_values`;
  `dicom_facts` keep of them what names nobody; a `codestream` is compressed pixels.
- `nifti` and `itk` (NRRD, MetaImage): what a `whole_file` has in common.
- `image` (PNG, JPEG, TIFF) and `medmnist`: display values, never HU.
"""
