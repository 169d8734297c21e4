"""What the side that writes a file format and the side that reads it both know of it."""
