"""Experiments: from a configuration to one result file, and the command line."""
