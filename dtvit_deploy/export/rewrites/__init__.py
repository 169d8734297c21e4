"""What a program is rewritten to before a translator sees it: the same answers, in what the translator understands."""
