"""What ``comfygate doctor`` says of one thing: how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    #: It works, or nobody needs it yet.
    WARN = "warn"
    #: The gateway would not start, or no job would run.
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    level: Level
    #: One word.
    subject: str
    #: What is so.
    sentence: str
    #: What to do about it; "" where all is well.
    remedy: str = ""

    def __str__(self) -> str:
        said = self.sentence.rstrip(".")
        return f"{self.level:<5} {self.subject:<10} {said}{f' -> {self.remedy}' if self.remedy else ''}"


def ok(subject: str, sentence: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, sentence)


def warn(subject: str, sentence: str, remedy: str) -> Finding:
    """Something to know."""
    return Finding(Level.WARN, subject, sentence, remedy)


def fail(subject: str, sentence: str, remedy: str) -> Finding:
    """Something to mend."""
    return Finding(Level.FAIL, subject, sentence, remedy)
