"""The exported program itself, in any arithmetic, and what rounding may do to it."""
