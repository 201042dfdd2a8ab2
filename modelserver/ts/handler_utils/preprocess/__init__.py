"""Preprocessing that runs on the accelerator."""
