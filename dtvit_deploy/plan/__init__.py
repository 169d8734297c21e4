"""What is asked for as a graph of stages, and how it is carried out: here, in several processes, or on several machines."""
