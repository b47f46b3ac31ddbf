"""Annotation files of every format, each read into a table of people."""
