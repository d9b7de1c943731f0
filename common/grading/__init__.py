"""A student's file judged in words: initializers, activations and normalizations.

`grader` runs the file in a process of its own (`child`), asks each function that it knows by name
the questions of `initializers`, `activations` or `normalizations`, and has the same module judge
the answers. `questions` is what they pass to each other.
"""
