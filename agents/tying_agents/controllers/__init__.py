"""The controllers: who chooses the tying."""
