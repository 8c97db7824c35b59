"""How much a device may show of its private data, and how much it has shown: epsilon, and a budget of it. Pure.

The unit that is protected is the whole device: any private windows exchanged for any others, as many. Its model is a
function of all of them, and so every row of its knowledge may be. Nothing is promised about a single window beyond what
follows from that. docs/privacy.md says what else is told, and not protected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from mekt.accounting import Accountant, accountant
from mekt.messages import LARGEST_EPSILON, Privacy
from mekt.noise import Mechanism
from mekt.plan import Plan
from mekt.schema import Bounds

# On HAPT half of a device's rows lie 0.6 to 0.9 away from the global ones.
CLIP = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacySettings:
    """How knowledge is protected, and until which epsilon at this delta rounds are taken part in."""

    clip: Annotated[float, Bounds(low=1e-6, high=1e6)] = CLIP
    noise_multiplier: Annotated[float, Bounds(low=1e-3, high=1e6)]
    epsilon_budget: Annotated[float, Bounds(low=1e-3, high=1e9)]
    delta: Annotated[float, Bounds(low=1e-15, high=0.5)] = 1e-5
    accountant: Accountant = "exact"

    @property
    def mechanism(self) -> Mechanism:
        """What is done to each matrix of knowledge."""
        return Mechanism(clip=self.clip, noise_multiplier=self.noise_multiplier)


class Budget:
    """What may be shown: costs are mu^2 of the Gaussian mechanism, which add up over everything that is shown.

    `spent` is always all that a device has ever spent; it keeps that, not this.
    """

    def __init__(self, settings: PrivacySettings) -> None:
        """Take up the settings.

        Raises:
            MissingPackageError: when they name an accountant that is not installed.
        """
        self.settings = settings
        self._accountant: Callable[[float, float], float] = accountant(settings.accountant)
        # It is asked for many times a second, and changes with the rounds.
        self._known: dict[float, float] = {}

    def cost(self, plan: Plan, modalities: int) -> float:
        """Of one round: a matrix for each modality, and one for its hidden layer where the plan asks for that."""
        matrices = modalities * (2 if plan.method.sends_hidden else 1)
        return matrices * self.settings.mechanism.mu_squared(plan.knowledge_rows)

    def epsilon(self, spent: float) -> float:
        """What a device has given away that has spent so much."""
        if spent not in self._known:
            self._known = dict(list(self._known.items())[-1:]) | {spent: self._accountant(spent, self.settings.delta)}
        return self._known[spent]

    def allows(self, spent: float, cost: float) -> bool:
        """Whether so much more may be spent."""
        return self.epsilon(spent + cost) <= self.settings.epsilon_budget

    def refusal(self, spent: float, cost: float) -> str:
        """Why a round of this cost is sat out, in words."""
        return (
            f"privacy budget: epsilon {self.epsilon(spent):.4g} is spent, with this round it would be "
            f"{self.epsilon(spent + cost):.4g}, over the budget of {self.settings.epsilon_budget:.4g} "
            f"(delta {self.settings.delta:g})"
        )

    def told(self, spent: float, cost: float | None) -> Privacy:
        """What a presence says of it; `cost` is that of a round of the plan that is followed, if one is."""
        return Privacy(
            epsilon=min(self.epsilon(spent), LARGEST_EPSILON),
            delta=self.settings.delta,
            budget=self.settings.epsilon_budget,
            is_spent=cost is not None and not self.allows(spent, cost),
        )


def budget_of(settings: PrivacySettings | None) -> Budget | None:
    """The budget of a device that has these settings; none where nothing is protected.

    Raises:
        MissingPackageError: when they name an accountant that is not installed.
    """
    return None if settings is None else Budget(settings)
