"""A program written anew in the order of memory that the Neural Engine wants."""
