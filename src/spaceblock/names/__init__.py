"""Names from elsewhere: which of them may become a path on a given target, and what would do instead.

A name on the wire is a relative path whose parts are joined by ``/``, whatever the sender's system. This package is the
only place that decides whether such a name is acceptable; it touches no disk.

- :mod:`.rules`: what one target accepts of one name.
- :mod:`.tree`: what it accepts of all names of a transfer together.
- :mod:`.renaming`: other names for those that are not accepted.
"""

from ..wire.messages import NameRule
from .renaming import BadName, Renaming, alternative, alternatives
from .rules import DEPTH_MAX, STAGING_PREFIX, WIRE_RULES, Fault, NameRules, local_rules
from .tree import Named, NameTree, Problem, find_problems, refusal

__all__ = [
    "DEPTH_MAX",
    "STAGING_PREFIX",
    "WIRE_RULES",
    "BadName",
    "Fault",
    "NameRule",
    "NameRules",
    "NameTree",
    "Named",
    "Problem",
    "Renaming",
    "alternative",
    "alternatives",
    "find_problems",
    "local_rules",
    "refusal",
]
