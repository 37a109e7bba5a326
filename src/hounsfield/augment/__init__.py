"""One image to views, on the device, one draw per sample."""
