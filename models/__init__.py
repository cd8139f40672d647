"""Embedders, rerankers and generators behind three small seams (models/base.py)."""
