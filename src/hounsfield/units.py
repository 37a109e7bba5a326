"""The scale of a stored pixel: HU, or display values spread over the positive half of int16."""

AIR_HU = -1000
WIDE_HU = (-1000, 1000)  # the wide window: from air to dense bone
DISPLAY_MAX = 32767  # display values are spread over [0, DISPLAY_MAX], whatever their bit depth
