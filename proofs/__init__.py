"""What is promised of a transfer that breaks, put to the test at length: one file a proof, ``python -m proofs`` runs them.

A proof is a module of this package with a docstring that says what it proves, ``configure(parser)`` for its options and
``prove(options)``, which returns what to report and raises :class:`proofs.support.Disproved`. The tests run each of them
for a few seconds; ``docs/reliability.md`` has the figures of the long runs.
"""
