from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.errors import RequestError
from aurum_orchestration.fleet.table_id import (
    TableId,
    check_glob,
    discovered_by,
    literal_id,
    literal_prefix,
    matches,
    quote_part,
)

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
NASTY = st.text(st.sampled_from('a."*?- é\n\\['), min_size=1, max_size=6)
IDS = st.builds(TableId, NAMES | NASTY, st.lists(NAMES | NASTY, min_size=1, max_size=4).map(tuple))


@given(IDS)
def test_every_id_is_read_back_as_it_was_written(table: TableId) -> None:
    assert TableId.parse(str(table)) == table


@given(IDS, IDS)
def test_two_ids_never_look_alike(one: TableId, other: TableId) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(IDS, IDS)
def test_an_id_is_a_glob_for_itself_alone(one: TableId, other: TableId) -> None:
    assert matches(str(one), one)
    assert matches(str(one), other) == (one == other)
    assert literal_id(str(one)) == one


@given(IDS)
def test_two_stars_match_everything_and_one_star_exactly_one_part(table: TableId) -> None:
    stars = len(table.parts)
    assert matches("**", table)
    assert matches(quote_part(table.backend) + ".*" * stars, table)
    assert not matches(quote_part(table.backend) + ".*" * (stars + 1), table)
    assert not matches(quote_part(table.backend) + ".*" * (stars - 1), table)


@given(IDS)
def test_what_a_prefix_index_relies_on(table: TableId) -> None:
    names = (table.backend, *table.parts)
    for keep in range(len(names)):
        glob = ".".join([*map(quote_part, names[:keep]), "**"])
        assert matches(glob, table)
        assert literal_prefix(glob) == names[:keep]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lake.flights.planes", ("lake", "flights", "planes")),
        ("lake.a.b.c.d", ("lake", "a", "b", "c", "d")),
        ('lake."my.ns"."t""x"', ("lake", "my.ns", 't"x')),
        ('"lake"."flights"."planes"', ("lake", "flights", "planes")),
        ('lake.flüge."größe in €"', ("lake", "flüge", "größe in €")),
        ('lake.表."a*b?"', ("lake", "表", "a*b?")),
        ('lake.n."""', None),
        ('lake.n.""""', ("lake", "n", '"')),
        ('lake.n."\n"', ("lake", "n", "\n")),
        ("lake.n.with space", ("lake", "n", "with space")),
        ("lake.n.2013-01-01", ("lake", "n", "2013-01-01")),
    ],
)
def test_what_people_write(text: str, parts: tuple[str, ...] | None) -> None:
    if parts is None:
        with pytest.raises(RequestError):
            TableId.parse(text)
    else:
        table = TableId.parse(text)
        assert (table.backend, *table.parts) == parts
        assert table.name == parts[-1]
        assert table.namespace == parts[1:-1]


def test_an_id_prints_with_quotes_only_where_they_are_needed() -> None:
    assert str(TableId("lake", ("flights", "2013-01"))) == "lake.flights.2013-01"
    assert str(TableId("my lake", ("my.ns", 't"x'))) == '"my lake"."my.ns"."t""x"'
    assert str(TableId("lake", ("naïve", "e\u0301"))) == 'lake.naïve."e\u0301"'


@pytest.mark.parametrize(
    "text",
    ["", ".", "lake", "lake.", ".lake.x", "lake..x", 'lake."x', 'lake.x"y"', 'lake."x"y', 'lake."x""y', 'lake.""',
     'lake."a\0b"', "lake.flights.*", "lake.fl?ghts.x", "**"],
)  # fmt: skip
def test_what_is_no_id_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        TableId.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("glob", "text", "expected"),
    [
        ("lake.flights.*", "lake.flights.planes", True),
        ("lake.flights.*", "lake.flights.sub.planes", False),
        ("lake.flights.**", "lake.flights.sub.planes", True),
        ("lake.flights.**", "lake.flights.planes", True),
        ("lake.flights.**", "lake.flights2.planes", False),
        ("lake.*.planes", "lake.flights.planes", True),
        ("lake.*.planes", "lake.a.b.planes", False),
        ("lake.**.planes", "lake.a.b.planes", True),
        ("*.*.planes", "lake.flights.planes", True),
        ("**planes", "lake.flights.old_planes", True),
        ("lake.flights.pl*", "lake.flights.planes", True),
        ("lake.flights.pl*", "lake.flights.Planes", False),
        ("lake.flights.plane?", "lake.flights.planes", True),
        ("lake.flights.plane?", "lake.flights.plane", False),
        ("lake?flights.planes", "lake.flights.planes", False),
        # a dot inside a name does not stop a star, a dot between names does
        ("lake.*.x", 'lake."my.ns".x', True),
        ("lake.my*.x", 'lake."my.ns".x', True),
        ("lake.my.*.x", 'lake."my.ns".x', False),
        ('lake."my.ns".*', 'lake."my.ns"."t""x"', True),
        ('lake."my.ns".*', "lake.my.ns", False),
        ("lake.n.t*", 'lake.n."t""x"', True),
        # in quotes nothing is special
        ('lake.n."a*"', 'lake.n."a*"', True),
        ('lake.n."a*"', "lake.n.ab", False),
        ('lake.n."a.b"*', 'lake.n."a.bc"', True),
        # what means something to regular expressions means nothing here
        ("lake.n.a+b", 'lake.n."a+b"', True),
        ("lake.n.a+b", "lake.n.aab", False),
        ("lake.n.[ab]", "lake.n.a", False),
        ("lake.n.*", 'lake.n."two\nlines"', True),
    ],
)
def test_globs(glob: str, text: str, expected: bool) -> None:
    assert matches(glob, TableId.parse(text)) is expected


@pytest.mark.parametrize("glob", ["", "lake.", "lake..*", 'lake."x', 'lake."a""b"c'])
def test_a_glob_that_is_not_well_formed_is_refused(glob: str) -> None:
    with pytest.raises(RequestError):
        check_glob(glob)
    with pytest.raises(RequestError):
        matches(glob, TableId("lake", ("a", "b")))


@pytest.mark.parametrize(
    ("patterns", "covered"),
    [
        ([], {"flights.a", "flights.sub.b", "other.c"}),
        (["flights.*"], {"flights.a"}),
        (["flights.**"], {"flights.a", "flights.sub.b"}),
        (["flights"], {"flights.a", "flights.sub.b"}),
        (["fl*"], {"flights.a", "flights.sub.b"}),
        (["flights.sub"], {"flights.sub.b"}),
        (["flights.a"], {"flights.a"}),
        (["*.c", "flights.a"], {"flights.a", "other.c"}),
        (["flights.x*"], set()),
        (["**"], {"flights.a", "flights.sub.b", "other.c"}),
    ],
)
def test_discover_takes_namespaces_and_globs_relative_to_the_backend(patterns: list[str], covered: set[str]) -> None:
    tables = ["flights.a", "flights.sub.b", "other.c"]
    assert {table for table in tables if discovered_by(patterns, TableId.parse(f"lake.{table}"))} == covered


def test_a_name_full_of_quotes_does_not_slow_matching_down() -> None:
    # a pattern that tries every way to pair the quotes would never end
    table = TableId("lake", ("n", '"' * 400 + "x"))
    assert TableId.parse(str(table)) == table
    assert not matches("**.*y", table)
    with pytest.raises(RequestError):
        TableId.parse("lake.n." + '"' * 401)
