"""Optimizers: update rules, schedules and clipping, once for all backends."""
