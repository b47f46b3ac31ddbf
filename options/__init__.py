"""The command lines of the five stages."""
