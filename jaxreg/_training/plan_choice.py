"""The choice of a plan: the cheapest one that can serve a training, or the one asked for."""

from __future__ import annotations

from collections.abc import Collection

from jaxreg._errors import ArgumentError
from jaxreg._plans import registry
from jaxreg._plans.plan import Plan
from jaxreg._plans.request import Request


def choose(name: str, request: Request, among: Collection[str] | None = None) -> Plan:
    """Return the plan to run.

    Args:
        name: of a plan, or "auto" for the cheapest that can serve.
        request: the training.
        among: names of the plans to choose from; ``None`` for all.

    Raises:
        ArgumentError: no plan has that name, or it cannot serve; the message says why.
    """
    plans = _plans(request, among)
    if not isinstance(name, str) or (name != "auto" and name not in plans):
        names = ", ".join(map(repr, ("auto", *plans)))
        raise ArgumentError(f"plan must be one of {names}, got {name!r}")
    request.check_weights()
    if name != "auto":
        why = plans[name].why_not(request)
        if why is not None:
            raise ArgumentError(f"plan={name!r} cannot serve this training: {why}")
        return plans[name]
    # The cheapest first, so that most trainings ask one plan alone.
    costs = {plan: plan.cost(request) for plan in plans.values()}
    for plan in sorted(costs, key=costs.__getitem__):
        if plan.why_not(request) is None:
            return plan
    subject = "no plan can serve" if request.statistics is None else "statistics in place of data cannot serve"
    raise ArgumentError(f"{subject} this training. {_reasons(plans, request)}")


def _plans(request: Request, among: Collection[str] | None) -> dict[str, Plan]:
    """Return one plan for each name: of those that share it, the one for batches where the training has them."""
    found: dict[str, Plan] = {}
    for plan in registry.PLANS:
        suits = plan.for_batches != request.batches.is_full
        if (among is None or plan.name in among) and (plan.name not in found or suits):
            found[plan.name] = plan
    return found


def _reasons(plans: dict[str, Plan], request: Request) -> str:
    """Return why each plan cannot serve; plans with the same reason are named together."""
    names: dict[str | None, list[str]] = {}
    for name, plan in plans.items():
        names.setdefault(plan.why_not(request), []).append(name)
    return "; ".join(f"{', '.join(same)}: {why}" for why, same in names.items())
