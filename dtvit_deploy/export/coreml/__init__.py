"""From the exported program to a Core ML package."""
