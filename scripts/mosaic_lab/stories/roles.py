"""Who and what can take part in a story, and how a plot draws them.

A plot names its roles ("hero", "toy", ...) and gives each a drawer, a function of the random generator and
of the roles drawn before it. The texts of the plot hold roles and their forms: `{hero}`,
`{hero.he}`, `{toy.a}`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_lab.stories.vocabulary import ADULTS, BOY_ANIMALS, BOYS, GIRL_ANIMALS, GIRLS, TRAITS, Facts

Cast = dict[str, Any]
Drawer = Callable[[random.Random, Cast], Any]

PRONOUNS = {
    "female": ("she", "her", "her"),
    "male": ("he", "him", "his"),
    "neuter": ("it", "it", "its"),
}


def with_article(phrase: str) -> str:
    """The phrase after the indefinite article that fits its first letter (no silent h or 'uni-' here)."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


@dataclass(frozen=True)
class Being:
    """A person or an animal: `name` is how the story calls it ("Lily", "the owl", "dad")."""

    name: str
    kind: str
    gender: str
    trait: str = ""
    facts: Facts | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def a(self) -> str:
        """How the story introduces it: "a little girl"."""
        return with_article(f"{self.trait} {self.kind}")

    @property
    def he(self) -> str:
        return PRONOUNS[self.gender][0]

    @property
    def him(self) -> str:
        return PRONOUNS[self.gender][1]

    @property
    def his(self) -> str:
        return PRONOUNS[self.gender][2]

    @property
    def himself(self) -> str:
        return f"{'him' if self.gender == 'male' else self.his if self.gender == 'female' else 'it'}self"

    @property
    def He(self) -> str:
        """For a sentence after a quotation that ends in "!" or "?", which the engine leaves as it is."""
        return self.he.capitalize()

    @property
    def His(self) -> str:
        return self.his.capitalize()

    @property
    def call(self) -> str:
        """How one speaks to a parent: "Mom"."""
        return self.name.capitalize()


@dataclass(frozen=True)
class Item:
    """A thing with one property that stays with it through the story."""

    noun: str
    adjective: str

    def __str__(self) -> str:
        return self.noun

    @property
    def full(self) -> str:
        return f"{self.adjective} {self.noun}"

    @property
    def a(self) -> str:
        return with_article(self.full)


@dataclass(frozen=True)
class Fork:
    """Beats that depend on what was drawn for `role`, a role whose values are the keys of `branches`."""

    role: str
    branches: Mapping[str, Sequence[Beat]]


Beat = tuple[str, ...] | Fork


@dataclass(frozen=True)
class Plot:
    """A story's skeleton: roles in the order they are drawn, and beats, each told by one of its wordings."""

    name: str
    roles: Mapping[str, Drawer]
    beats: Sequence[Beat]


def _gender(rng: random.Random, cast: Cast, unlike: str | None) -> str:
    if unlike is None:
        return rng.choice(("female", "male"))
    return "male" if cast[unlike].gender == "female" else "female"


def child(traits: Sequence[str] = TRAITS, unlike: str | None = None) -> Drawer:
    """A girl or a boy with a name that the story has not used; of the other gender than the role `unlike`."""

    def draw(rng: random.Random, cast: Cast) -> Being:
        gender = _gender(rng, cast, unlike)
        taken = {role.name for role in cast.values() if isinstance(role, Being)}
        name = rng.choice([name for name in (GIRLS if gender == "female" else BOYS) if name not in taken])
        return Being(name, "girl" if gender == "female" else "boy", gender, rng.choice(traits))

    return draw


def named_animal(kinds: Sequence[str], traits: Sequence[str] = TRAITS, unlike: str | None = None) -> Drawer:
    """An animal of one of the kinds, with a name."""

    def draw(rng: random.Random, cast: Cast) -> Being:
        gender = _gender(rng, cast, unlike)
        taken = {role.name for role in cast.values() if isinstance(role, Being)}
        name = rng.choice(
            [n for n in (GIRL_ANIMALS if gender == "female" else BOY_ANIMALS) if n not in taken]
        )
        kind = rng.choice(kinds)
        return Being(name, kind, gender, rng.choice(traits))

    return draw


def adult(*groups: str) -> Drawer:
    """One of the hero's family: the groups are keys of ADULTS; a mother or a father if none."""

    def draw(rng: random.Random, cast: Cast) -> Being:
        group = rng.choice(groups or ("mother", "father"))
        names, gender = ADULTS[group]
        return Being(rng.choice(names), group, gender)

    return draw


def stranger(pool: Sequence[Facts], where: Callable[[Facts, Cast], bool] | None = None) -> Drawer:
    """Someone without a name, called "the owl" or "the baker"; each entry has kind, traits and gender."""

    def draw(rng: random.Random, cast: Cast) -> Being:
        facts = rng.choice([facts for facts in pool if where is None or where(facts, cast)])
        return Being(f"the {facts.kind}", facts.kind, facts.gender, rng.choice(facts.traits), facts)

    return draw


def item(pool: Mapping[str, Sequence[str]] | str) -> Drawer:
    """A noun of the pool and one of its adjectives; a string names a role's field: "trap.toys"."""

    def draw(rng: random.Random, cast: Cast) -> Item:
        table = pool
        if isinstance(table, str):
            role, field = table.split(".")
            table = getattr(cast[role], field)
        noun = rng.choice(list(table))
        return Item(noun, rng.choice(table[noun]))

    return draw


def fact_of(role: str, field: str) -> Drawer:
    """A fact about somebody drawn before, under a name of its own: the helper's favourite food."""
    return lambda rng, cast: getattr(cast[role].facts, field)


def one_of(pool: Sequence[Any], where: Callable[[Any, Cast], bool] | None = None) -> Drawer:
    """One entry of the pool: a string, or a row of facts that belong together."""

    def draw(rng: random.Random, cast: Cast) -> Any:
        return rng.choice([entry for entry in pool if where is None or where(entry, cast)])

    return draw
