"""Bugs to plant: the reconciler with one thing wrong, which the laws have to find."""

from __future__ import annotations

from enum import StrEnum

from shrk_coordinator.state.replicas.domains import Spread, Tally
from shrk_coordinator.state.replicas.places import Place
from shrk_coordinator.state.replicas.reconciler import Reconciler
from shrk_coordinator.state.replicas.replicas import SICK_REPLACED_MAX, Replicas, Standing


class Bug(StrEnum):
    """What can be planted."""

    FORGETS_DOMAIN = "forgets-domain"
    DROPS_BEFORE_REPLACEMENT = "drops-before-replacement"
    COUNTS_THE_SICK = "counts-the-sick"
    REPLACES_ALL_THE_SICK = "replaces-all-the-sick"


class _Anywhere(Replicas):
    """One node is as good as another, whomever it belongs to."""

    @staticmethod
    def gain(tally: Tally, place: Place) -> Spread:
        """What a node adds."""
        return 0, 0, 0


class _ForgetsDomain(Reconciler):
    replicas = _Anywhere


class _DropsBeforeReplacement(Reconciler):
    """Whoever leaves is let go at once."""

    def _replaced(self, known: Replicas, standing: Standing) -> bool:
        return True


class _CountedWhileSick(Replicas):
    """A replica at which requests fail is as good as another."""

    def standing(self, now: float) -> Standing:
        """How its replicas stand."""
        standing = Replicas.standing(self, now)
        while standing.sick:
            standing.serving.append(place := standing.sick.pop())
            standing.tally.add(place.domains)
        return standing


class _CountsTheSick(Reconciler):
    replicas = _CountedWhileSick


class _ReplacedWheneverSick(Replicas):
    """Whatever is sick is replaced, however many were so before."""

    def replaceable(self, now: float) -> int:
        """How many sick replicas may be replaced now."""
        return SICK_REPLACED_MAX


class _ReplacesAllTheSick(Reconciler):
    replicas = _ReplacedWheneverSick


_RECONCILERS = {
    Bug.FORGETS_DOMAIN: _ForgetsDomain,
    Bug.DROPS_BEFORE_REPLACEMENT: _DropsBeforeReplacement,
    Bug.COUNTS_THE_SICK: _CountsTheSick,
    Bug.REPLACES_ALL_THE_SICK: _ReplacesAllTheSick,
}


def reconciler_with(bug: Bug | None, now: float) -> Reconciler:
    """The product's own, or one with a bug."""
    return Reconciler(now) if bug is None else _RECONCILERS[bug](now)
