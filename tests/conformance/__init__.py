"""The conformance suite: every clause of the specification as a test that runs on any backend."""

SPEC_VERSION = "0.1"
"""Version of the clauses, apart from the package's own: it changes when a verdict could."""
