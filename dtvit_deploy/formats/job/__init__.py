"""What both sides of a device know: what is to be done there (a job), and what came of it (a results file)."""
