"""Faults made to happen: real processes on real databases, killed, cut off and crowded, and what is left of them.

``python -m tests.faults`` runs them at length and prints what came of each; ``test_faults.py`` runs a sample.
"""
