"""Traces and posteriors in, decisions out, one new patch at a time."""
