"""From files to tensors; knows no method."""
