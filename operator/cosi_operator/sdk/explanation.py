"""Why an object is not ready, as one value: what `why()` returns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from cosi_operator.sdk.diagnosis import Link, State, verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """The chain from a claim to its Secret. As text: the verdict, and each cause with advice.

    `links` has every object of the chain; those with `is_cause` hold the others up.
    """

    subject: str
    links: tuple[Link, ...]

    @property
    def is_ready(self) -> bool:
        """Whether everything that the caller may see is ready."""
        return is_fine(self.links)

    @property
    def causes(self) -> tuple[Link, ...]:
        """The objects that hold the others up."""
        return tuple(link for link in self.links if link.is_cause)

    def __str__(self) -> str:
        words = [f"{self.subject}: {verdict(self.links)}."]
        for link in self.causes:
            words += [text for text in (link.message, link.advice) if text]
            if link.command:
                words.append(f"To retry now, run: {link.command}")
        return " ".join(words)


def is_fine(links: Sequence[Link]) -> bool:
    """Whether every link is ready, or can't be seen."""
    return all(link.state in (State.READY, State.UNSEEN) for link in links)
