"""Rules beside their references by hand."""

import optimizers_by_hand as hand

from isometry.common.optimizers.layerwise import LAMB, LARS, NovoGrad
from isometry.common.optimizers.quickprop import Quickprop
from isometry.common.optimizers.rules import SGD, Adagrad, Adam, Momentum, RMSprop

CASES = {
    "sgd": (SGD(rate=0.1), hand.sgd),
    **{
        f"momentum, {form}{', nesterov' * nesterov}": (
            Momentum(rate=0.1, form=form, nesterov=nesterov),
            hand.momentum(form, nesterov=nesterov),
        )
        for form in ("outside", "inside", "average")
        for nesterov in (False, True)
    },
    **{
        f"adam, {place}": (Adam(place=place, eps=1e-3), hand.adam(place, eps=1e-3))
        for place in ("outside", "hat", "inside")
    },
    **{
        f"adam, {decay}": (Adam(decay=decay), hand.adam(decay=decay))
        for decay in ("decoupled", "independent")
    },
    **{
        f"rmsprop, {place}": (RMSprop(place=place, eps=1e-3), hand.rmsprop(place, eps=1e-3))
        for place in ("outside", "inside")
    },
    "adagrad, outside": (Adagrad(eps=1e-3), hand.adagrad("outside", eps=1e-3)),
    "adagrad, inside": (
        Adagrad(eps=1e-3, initial=0.1, place="inside"),
        hand.adagrad("inside", initial=0.1, eps=1e-3),
    ),
    "lars": (LARS(trust=0.1), hand.lars(trust=0.1)),
    "lars, together": (
        LARS(trust=0.1, eps=1e-2, denominator="together"),
        hand.lars("together", trust=0.1, eps=1e-2),
    ),
    "lars, outside": (
        LARS(trust=0.1, form="outside", exempt=("bias",)),
        hand.lars(form="outside", trust=0.1, exempt=("bias",)),
    ),
    "larc": (
        LARS(trust=0.02, form="outside", clip=True),
        hand.lars(form="outside", trust=0.02, clip=True),
    ),
    "lamb": (LAMB(), hand.lamb()),
    "lamb, decoupled": (LAMB(decay="decoupled"), hand.lamb("decoupled")),
    **{
        f"novograd, {averaging}": (NovoGrad(averaging=averaging), hand.novograd(averaging))
        for averaging in ("never", "always", "after the first")
    },
    "quickprop": (Quickprop(), hand.quickprop()),
}
"""Name -> rule, and its reference."""
