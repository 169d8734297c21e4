"""The state of this machine: what its kernel's files and its own tools say of clocks, temperatures, limits and rails.

A file for each kind of source, each with parsers of text, which take what a device prints and give numbers or None, and with what reads
it. A device's agent imports this room: it needs Python 3.10 and nothing else.
"""
