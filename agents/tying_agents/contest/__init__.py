"""Agents on the tying table: who finds a good tying with the fewest trainings?"""
