"""The conformance suite: every clause of the specification as a test that runs on any backend."""
