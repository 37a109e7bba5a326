"""What are the weights worth? Cells, and the plan that names them."""
