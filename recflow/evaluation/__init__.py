"""Evaluation that people can trust: comparisons with intervals and tests, published protocols, reports."""
