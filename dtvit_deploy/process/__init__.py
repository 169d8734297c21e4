"""How a process of ours behaves towards the machine: its end, its children, its memory, its silence."""
