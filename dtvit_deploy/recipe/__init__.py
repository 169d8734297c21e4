"""The one form of a request: its tables, how it is read and written, and whether it can be built."""
