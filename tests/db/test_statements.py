"""What a job's statement is judged to do to its session, by its text alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.statements import Leaves, NotYoursError, clean, judge

CONTROL = [
    "COMMIT",
    "commit;",
    "  Commit Work",
    "END",
    "END TRANSACTION;",
    "ROLLBACK",
    "ROLLBACK WORK",
    "ROLLBACK AND CHAIN",
    "COMMIT AND CHAIN",
    "ABORT",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "START TRANSACTION",
    "PREPARE TRANSACTION 'half'",
    "COMMIT PREPARED 'half'",
    "ROLLBACK PREPARED 'half'",
]
AROUND = [
    "{}",
    "-- a note\n{}",
    "-- a note\r{}",
    "/* a /* nested */ note */ {}",
    ";;{}",
    "SELECT 1; {}",
    "SELECT ';'; {}",
    "SELECT 'it''s'; {}",
    r"SELECT E'\''; {}",
    "SELECT E'a''b'; {}",
    r"SELECT '\'; {}",
    'SELECT 1 AS "; -- "; {}',
    "SELECT $$ ; $$; {}",
    "SELECT $a$ $b$ ; $a$; {}",
    "SELECT a$b$c FROM t; {}",
    "SELECT $1; {}",
    "{}; SELECT 1",
    "SELECT CASE WHEN true THEN 1 END; {}",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; {}",
    "CREATE FUNCTION f() RETURNS int AS $$ BEGIN ATOMIC $$ LANGUAGE sql; {}",
    "SELECT 1 AS begin, 2 AS atomic; {}",
]
HARMLESS = [
    "SELECT 'COMMIT'",
    "SELECT 1 -- ; COMMIT",
    "SELECT /* ; COMMIT; */ 1",
    "SELECT /* /* */ ; COMMIT; */ 1",
    r"SELECT E'\'; COMMIT; --'",
    "SELECT 'a''; COMMIT; --'",
    'SELECT 1 AS "; COMMIT;"',
    "SELECT $$; COMMIT;$$",
    "SELECT $x$; COMMIT; $$; COMMIT; $x$",
    "SELECT commit, rollback AS begin FROM versions",
    "SELECT CASE WHEN true THEN 1 END",
    "ROLLBACK TO SAVEPOINT one",
    "ROLLBACK TO one",
    "rollback transaction to savepoint one",
    "ROLLBACK WORK TO one",
    "SAVEPOINT commit",
    "RELEASE SAVEPOINT one",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END $f$",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; END",
    "create or replace procedure p(a int) language sql begin atomic insert into t values (a); end;",
    "",
    ";",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("control", CONTROL)
def test_transaction_control_is_refused_wherever_it_stands(control, around):
    with pytest.raises(NotYoursError, match="must not send"):
        judge(around.format(control))


@pytest.mark.parametrize("sql", HARMLESS)
def test_its_words_in_other_places_are_not(sql):
    assert judge(sql) is Leaves.STATE


@given(st.text(alphabet="'\"$-/*\\;eEaCOMMIT\n ", max_size=40))
def test_no_text_is_too_strange_to_be_judged(sql):
    try:
        assert judge(sql) in Leaves
    except NotYoursError:
        assert "COMMIT" in sql


@given(st.text(max_size=60))
def test_what_follows_a_closed_string_is_read(inside):
    quoted = "'" + inside.replace("'", "''") + "'"
    with pytest.raises(NotYoursError):
        judge(f"SELECT {quoted}; COMMIT")


def test_a_text_too_long_to_be_remembered_is_judged_as_well():
    with pytest.raises(NotYoursError):
        judge("SELECT '" + "x" * 100_000 + "'; COMMIT")


@pytest.mark.parametrize(
    "sql",
    ["PREPARE one AS SELECT 1", "DEALLOCATE ALL", "SELECT 1; DISCARD ALL", "LOAD 'auto_explain'"],
)
def test_what_no_reset_undoes_costs_the_connection(sql):
    assert judge(sql) is Leaves.TRACES


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL ROLE clerk",
        "SET search_path = reporting",
        "SET SCHEMA 'reporting'",
        "SELECT set_config('search_path', 'reporting', true)",
        "SET SESSION AUTHORIZATION clerk",
    ],
)
def test_another_role_or_search_path_is_remembered(sql):
    assert judge(sql) is Leaves.NAMES


def test_only_what_is_known_to_be_clean_leaves_nothing():
    assert judge("SELECT 'clean'") is Leaves.STATE
    assert judge(clean("SELECT 'clean'")) is Leaves.NOTHING
