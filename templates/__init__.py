"""Data only: kernel skeletons, found through `attngen.resources`."""
