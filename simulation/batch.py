"""Many seeds, one after the other, and what came of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .seeds import scenario
from .transfers import simulate


@dataclass
class Result:
    """What came of some seeds."""

    failures: dict[int, str] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    complete: int = 0
    """Simulations in which no stream was lost."""
    slowest: tuple[float, int] = (0.0, -1)
    """Seconds of virtual time, and the seed that took them."""

    def add(self, other: Result) -> None:
        """Count what came of other seeds too."""
        self.failures |= other.failures
        self.ends += other.ends
        self.pairs += other.pairs
        self.fates += other.fates
        self.complete += other.complete
        self.slowest = max(self.slowest, other.slowest)


def run(seeds: range) -> Result:
    """Run some seeds; what went wrong is kept with its seed."""
    result = Result()
    for seed in seeds:
        what = scenario(seed)
        result.pairs[f"{what.client.value} to {what.server.value}"] += 1
        try:
            outcome = simulate(what)
        except Exception as error:
            result.failures[seed] = f"{type(error).__name__}: {error}; {command(seed)}"
        else:
            result.ends += outcome.ends
            result.fates += Counter({fate.value: count for fate, count in outcome.fates.items()})
            result.complete += "lost" not in outcome.ends
            result.slowest = max(result.slowest, (outcome.seconds, seed))
    return result


def command(seed: int) -> str:
    """What a shell is told to run one seed again."""
    return f"python -m simulation --first {seed}"
