"""What is promised of a transfer that breaks, put to the test at length; ``python -m proofs`` runs one.

A proof is a module of this package with a docstring that says what it proves, ``configure(parser)`` for its options
and ``prove(options)``, which returns what to report and raises :class:`proofs.support.Disproved`. The tests run each
for a few seconds; ``docs/reliability.md`` has the figures of the long runs.
"""
