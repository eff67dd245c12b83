"""Answers that are worked out once: logs repeat themselves, so looking up the raw text is most of the speed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Once(dict[Question, Answer], Generic[Question, Answer]):
    """``once[question]`` is ``work(question)``, worked out at the first asking; bounded: a full one starts afresh.

    What ``work`` raises is raised, and nothing is kept then.
    """

    def __init__(self, work: Callable[[Question], Answer], limit: int = 65_536) -> None:
        super().__init__()
        self._work = work
        self._limit = limit

    def __missing__(self, question: Question) -> Answer:
        answer = self._work(question)
        if len(self) >= self._limit:
            self.clear()
        self[question] = answer
        return answer
