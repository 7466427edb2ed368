"""What a kernel compiled for a machine that need not be here takes of it: read from its code, nothing is run."""
