"""Weights on disk: whole files, of models that are known, with the categories that they predict."""
