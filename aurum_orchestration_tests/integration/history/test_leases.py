"""Leases: one holder per table, tokens that only grow, expiry by the store's clock."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from aurum_orchestration.errors import LeaseHeldError, LeaseLostError, RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History, Lease
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, wait_until

LONG = timedelta(minutes=10)
SHORT = timedelta(milliseconds=50)
WEATHER = TableId("lake", ("flights", 'we"ath.er'))


def take(history: History, holder: str = "maria", ttl: timedelta = LONG, table: TableId = FLIGHTS) -> Lease:
    return history.acquire(table, holder=holder, operation_id=f"operation of {holder}", ttl=ttl)


def expire(history: History, table: TableId = FLIGHTS) -> None:
    wait_until(lambda: history.holder(table) is None, "the lease has expired")


def test_a_lease_says_who_has_it_and_until_when(history: History) -> None:
    lease = take(history)
    assert (lease.table, lease.token, lease.holder) == (FLIGHTS, 1, "maria")
    assert lease.operation_id == "operation of maria"
    assert lease.ttl == LONG
    assert lease.expires_at.utcoffset() == timedelta(0)
    assert abs(lease.expires_at - datetime.now(UTC) - LONG) < timedelta(minutes=2)
    assert history.holder(FLIGHTS) == lease
    history.check(lease)


def test_a_held_lease_is_refused_with_its_holder_and_expiry(history: History) -> None:
    lease = take(history)
    with pytest.raises(LeaseHeldError) as refused:
        take(history, "john")
    assert refused.value.transient
    assert refused.value.table == str(FLIGHTS)
    for part in ("maria", "operation of maria", lease.expires_at.isoformat()):
        assert part in refused.value.detail
    assert history.holder(FLIGHTS) == lease


def test_the_same_holder_is_refused_too(history: History) -> None:
    take(history)
    with pytest.raises(LeaseHeldError):
        take(history)


def test_tables_are_independent(history: History) -> None:
    take(history)
    other = take(history, "john", table=WEATHER)
    assert other.token == 1
    assert history.holder(WEATHER) == other


def test_tokens_grow_through_releases(history: History) -> None:
    tokens = []
    for _ in range(3):
        lease = take(history)
        history.release(lease)
        tokens.append(lease.token)
    assert tokens == [1, 2, 3]


def test_tokens_grow_through_expiry_and_closing(history: History) -> None:
    take(history, ttl=SHORT)
    expire(history)
    history.close()
    assert take(history).token == 2


def test_a_released_lease_is_free_and_lost(history: History) -> None:
    lease = take(history)
    history.release(lease)
    assert history.holder(FLIGHTS) is None
    for use in (history.check, history.renew):
        with pytest.raises(LeaseLostError, match="released"):
            use(lease)
    history.release(lease)


def test_an_expired_lease_is_lost_before_anybody_takes_it(history: History) -> None:
    lease = take(history, ttl=SHORT)
    expire(history)
    for use in (history.check, history.renew):
        with pytest.raises(LeaseLostError, match="expired at 20"):
            use(lease)
    assert history.holder(FLIGHTS) is None


def test_an_expired_lease_can_be_taken_over_and_the_old_holder_is_told(history: History) -> None:
    old = take(history, ttl=SHORT)
    expire(history)
    new = take(history, "john")
    for use in (history.check, history.renew):
        with pytest.raises(LeaseLostError, match=r"taken over with token 2; lease held by john"):
            use(old)
    history.release(old)
    history.check(new)
    assert history.holder(FLIGHTS) == new
    history.release(new)
    with pytest.raises(LeaseLostError, match=r"taken over with token 2; nobody holds"):
        history.check(old)


def test_renewing_moves_the_expiry_and_keeps_the_token(history: History) -> None:
    lease = take(history)
    time.sleep(0.01)
    renewed = history.renew(lease)
    assert renewed.expires_at > lease.expires_at
    assert renewed == Lease(FLIGHTS, 1, "maria", "operation of maria", renewed.expires_at, LONG)
    found = history.holder(FLIGHTS)
    assert found is not None
    assert found.expires_at == renewed.expires_at


def test_a_renewed_lease_outlives_its_first_expiry(history: History) -> None:
    first = take(history, ttl=timedelta(seconds=1))
    lease = history.renew(Lease(**{name: getattr(first, name) for name in Lease.__slots__} | {"ttl": LONG}))
    witness = take(history, "john", ttl=timedelta(seconds=1), table=WEATHER)
    expire(history, WEATHER)
    assert witness.expires_at >= first.expires_at
    history.check(lease)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta.max])
def test_a_lease_of_no_time_or_of_an_age_is_refused(history: History, ttl: timedelta) -> None:
    with pytest.raises(RequestError):
        take(history, ttl=ttl)
    assert history.holder(FLIGHTS) is None


def test_a_store_that_was_never_made_holds_nothing(history: History) -> None:
    assert history.holder(FLIGHTS) is None
    with pytest.raises(LeaseLostError):
        history.check(Lease(FLIGHTS, 1, "maria", "op", datetime.now(UTC) + LONG, LONG))


def test_of_many_threads_one_gets_it(history: History) -> None:
    def attempt(number: int) -> int | None:
        try:
            return take(history, str(number)).token
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(attempt, range(16)))
    assert sorted(token for token in tokens if token is not None) == [1]


def test_the_clock_is_the_servers(postgres_store: str) -> None:
    engine = create_engine(postgres_store)
    with engine.begin() as connection:
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        connection.execute(
            text(
                f"CREATE FUNCTION {schema}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE "
                "AS $$ SELECT pg_catalog.clock_timestamp() + interval '1000 days' $$"
            )
        )
    engine.dispose()
    with History(f"{postgres_store}%2Cpg_catalog") as history:
        lease = take(history)
        assert lease.expires_at - datetime.now(UTC) > timedelta(days=999)
        history.check(history.renew(lease))
        assert history.holder(FLIGHTS) is not None
