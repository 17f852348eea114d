"""The list of plans: all that the choice, ``fit`` and their error messages know of them."""

from __future__ import annotations

from jaxreg._plans.compressed import Compressed
from jaxreg._plans.compressed_minibatch import CompressedMinibatch
from jaxreg._plans.minibatch import Minibatch
from jaxreg._plans.plan import Plan
from jaxreg._plans.spectral import Spectral
from jaxreg._plans.stepwise import Stepwise

# In the order in which messages name them.
PLANS: tuple[Plan, ...] = (Stepwise(), Minibatch(), Compressed(), CompressedMinibatch(), Spectral())
