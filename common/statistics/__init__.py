"""Tests of a law with stated error rates, and tolerances in units in the last place."""
