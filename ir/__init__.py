"""Data only: programs of the language, found through `attngen.resources`."""
