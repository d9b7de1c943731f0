"""Network families, backend-free: definitions over the contract and ``nx.ops``.

A family is a frozen description, without arrays: ``initialize(nx, stream)`` draws its parameters, a
flat dictionary path -> array, and ``forward(nx, parameters, x)`` runs it, as a pure function that
every backend can differentiate and compile. Layers of one shape are one stack of parameters and
one `scan`, so that ten thousand layers compile as fast as two.

Words: h is a layer's output, z = W h + b its preactivation, phi its activation, L the depth.
"""
