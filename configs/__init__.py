"""Hydra configuration groups, installed as package data (ftp_cl.configs)."""
