"""The command line: what is listed, what is shown, which options all studies take."""
