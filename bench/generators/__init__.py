"""One module a generator: its image as a whole, what it is compared with, the goals."""
