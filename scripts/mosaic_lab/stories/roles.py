"""Who and what can take part in a story, and how a plot draws them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

Cast = dict[str, Any]
Drawer = Callable[[random.Random, Cast], Any]
# A table itself, the name of one, or `role.field`: a fact about a role drawn before.
Pool = str | Sequence[Any] | Mapping[str, Any]

PRONOUNS = {
    "female": ("she", "her", "her"),
    "male": ("he", "him", "his"),
    "neuter": ("it", "it", "its"),
}


class Facts(SimpleNamespace):
    """A row of a table: facts that belong together."""


def with_article(phrase: str) -> str:
    """Puts the indefinite article that fits the first letter (no silent h or 'uni-' here) before a phrase."""
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


Beat = Sequence[str] | Fork


@dataclass(frozen=True)
class Plot:
    """A story's skeleton: roles in the order they are drawn, and beats, each told by one of its wordings."""

    name: str
    roles: Mapping[str, Drawer]
    beats: Sequence[Beat]

    def draw_cast(self, rng: random.Random) -> Cast:
        """Draws all roles; each may depend on those before it."""
        cast: Cast = {}
        for role, draw in self.roles.items():
            cast[role] = draw(rng, cast)
        return cast


def fact(path: str, cast: Cast) -> Any:
    """The fact `role.field` about a row, or about a being that was drawn from a table of rows."""
    role, _, field = path.partition(".")
    value = cast[role]
    return getattr(value.facts if isinstance(value, Being) else value, field)


class Drawers:
    """Ways to draw a role: `{draw: child, unlike: hero}` in a plot calls `child(unlike="hero")`.

    Args:
        tables (`Mapping`): words and rows by name. Names of people and animals come from `girls`, `boys`,
            `girl_animals`, `boy_animals` and `adults`.
    """

    def __init__(self, tables: Mapping[str, Any]):
        self._tables = tables

    def child(self, traits: Pool = "traits", unlike: str | None = None) -> Drawer:
        """A girl or a boy with a name that is new in the story; not of the gender of the role `unlike`."""

        def draw(rng: random.Random, cast: Cast) -> Being:
            gender, name = self._name(rng, cast, unlike, "girls", "boys")
            kind = "girl" if gender == "female" else "boy"
            return Being(name, kind, gender, rng.choice(self._entries(traits, cast)))

        return draw

    def named_animal(self, kinds: Pool, traits: Pool = "traits", unlike: str | None = None) -> Drawer:
        """An animal of one of the kinds, with a name."""

        def draw(rng: random.Random, cast: Cast) -> Being:
            gender, name = self._name(rng, cast, unlike, "girl_animals", "boy_animals")
            kind = rng.choice(self._entries(kinds, cast))
            return Being(name, kind, gender, rng.choice(self._entries(traits, cast)))

        return draw

    def adult(self, groups: Sequence[str] = ("mother", "father")) -> Drawer:
        """One of the hero's family; the groups are rows of the table `adults`."""

        def draw(rng: random.Random, cast: Cast) -> Being:
            group = rng.choice(groups)
            row = self._tables["adults"][group]
            return Being(rng.choice(row.names), group, row.gender)

        return draw

    def stranger(
        self, pool: Pool, having: Mapping[str, str] | None = None, lacking: Mapping[str, str] | None = None
    ) -> Drawer:
        """Somebody without a name, called "the owl": rows of the pool have `kind`, `traits` and `gender`.

        `having: {skill: trap.skills}` keeps those whose skill is one of the skills of the trap, and `lacking`
        the others.
        """

        def draw(rng: random.Random, cast: Cast) -> Being:
            rows = self._entries(pool, cast)
            for field, path in (having or {}).items():
                wanted = fact(path, cast)
                rows = [row for row in rows if getattr(row, field) in wanted]
            for field, path in (lacking or {}).items():
                unwanted = fact(path, cast)
                rows = [row for row in rows if getattr(row, field) not in unwanted]
            row = rng.choice(rows)
            return Being(f"the {row.kind}", row.kind, row.gender, rng.choice(row.traits), row)

        return draw

    def item(self, pool: Pool) -> Drawer:
        """A noun of the pool and one of its adjectives."""

        def draw(rng: random.Random, cast: Cast) -> Item:
            table = self._resolve(pool, cast)
            noun = rng.choice(list(table))
            return Item(noun, rng.choice(table[noun]))

        return draw

    def one_of(self, pool: Pool, other_than: Sequence[str] = ()) -> Drawer:
        """An entry of the pool, a word or a row, that none of the roles `other_than` is."""

        def draw(rng: random.Random, cast: Cast) -> Any:
            taken = [cast[role] for role in other_than]
            return rng.choice([entry for entry in self._entries(pool, cast) if entry not in taken])

        return draw

    def fact(self, of: str) -> Drawer:
        """A fact about a role, `role.field`, under a name of its own."""
        return lambda rng, cast: fact(of, cast)

    def entry(self, table: str, key: str) -> Drawer:
        """The row of a table that a fact about a role, `role.field`, names."""
        return lambda rng, cast: self._tables[table][fact(key, cast)]

    def brother_or_sister(self, of: str) -> Drawer:
        """What the role is to a sibling: "brother"."""
        return lambda rng, cast: "brother" if cast[of].gender == "male" else "sister"

    def with_article(self, of: str) -> Drawer:
        """A role after its indefinite article: "an umbrella"."""
        return lambda rng, cast: with_article(cast[of])

    def with_the(self, of: str) -> Drawer:
        """A role with "the" for its indefinite article: "the marble" for "a blue marble"."""
        return lambda rng, cast: "the " + cast[of].split(" ", 1)[1]

    def _resolve(self, pool: Pool, cast: Cast) -> Any:
        if not isinstance(pool, str):
            return pool
        return fact(pool, cast) if "." in pool else self._tables[pool]

    def _entries(self, pool: Pool, cast: Cast) -> Sequence[Any]:
        entries = self._resolve(pool, cast)
        return sorted(entries) if isinstance(entries, Mapping) else entries

    def _name(
        self, rng: random.Random, cast: Cast, unlike: str | None, female: str, male: str
    ) -> tuple[str, str]:
        if unlike is None:
            gender = rng.choice(("female", "male"))
        else:
            gender = "male" if cast[unlike].gender == "female" else "female"
        taken = {role.name for role in cast.values() if isinstance(role, Being)}
        names = self._tables[female if gender == "female" else male]
        return gender, rng.choice([name for name in names if name not in taken])
