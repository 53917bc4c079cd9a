"""One file of shapes per operation."""
