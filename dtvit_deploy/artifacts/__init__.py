"""What an artefact is, and how files of any kind are read and written here: whole or absent, and within bounds."""
