"""Deciding: from a view to the one next step. Pure; time and everything else is an argument."""
