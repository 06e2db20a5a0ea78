"""``spaceblock bench``, and what it shares with the project's other benchmarks: two processes that are measured."""
