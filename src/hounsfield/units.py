"""The scale of a stored pixel: HU, or display values spread over the positive half of int16."""

AIR_HU = -1000
DISPLAY_MAX = 32767  # display values are spread over [0, DISPLAY_MAX], whatever their bit depth
