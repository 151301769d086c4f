"""Faults in a cluster of real processes under load, and checks by clients that are not ours."""
