from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgwatch_sessions.core.statements import (
    UNKNOWN_STATEMENT,
    Statement,
    StatementKind,
    parse_statement,
)
from pgwatch_sessions.core.statements.commands import NO_SQL
from pgwatch_sessions.core.statements.redaction import Comment, scan
from pgwatch_sessions.core.statements.tags import tags_of, written


def _redact(sql: str) -> str:
    return scan(sql).redacted


REDACTED = [
    # Every form of a literal.
    ("SELECT 'a', b", "SELECT ?, b"),
    ("WHERE a = 'it''s' AND b = ''", "WHERE a = ? AND b = ?"),
    (r"WHERE a = E'it\'s \\' AND b = e'\\'", "WHERE a = ? AND b = ?"),
    (r"WHERE a = U&'\0061''b' UESCAPE '!' AND b = 1", "WHERE a = ? UESCAPE ? AND b = ?"),
    ("WHERE a = B'101' OR a = x'1F' OR a = n'x'", "WHERE a = ? OR a = ? OR a = ?"),
    ("WHERE a = $$it's$$ OR a = $tag$ $$ $ta$ ' $tag$ OR b", "WHERE a = ? OR a = ? OR b"),
    ("WHERE a=$é1$x$é1$", "WHERE a=?"),
    ("WHERE a > 1_000 OR a > 0x1F OR a > 0o7 OR a > 0b1", "WHERE a > ? OR a > ? OR a > ? OR a > ?"),
    ("WHERE a > 1e5 OR a > 1.5E-10 OR a > .5 OR a > 1. OR a > -2", "WHERE a > ? OR a > ? OR a > ? OR a > ? OR a > -?"),
    ("WHERE a = 'x'\n   'y' -- c\n 'z' AND b", "WHERE a = ? AND b"),
    ("SELECT 123abc, 1x$a$, a[1:2]", "SELECT ?, a[?:?]"),
    ("ALTER ROLE x PASSWORD 'y'", "ALTER ROLE x PASSWORD ?"),
    ("DO $$ BEGIN PERFORM 1; END $$", "DO ?"),
    # What is none.
    ("SELECT t1.c2, x$a$, naïve WHERE a = $1 AND b = $12", "SELECT t1.c2, x$a$, naïve WHERE a = $1 AND b = $12"),
    ('SELECT "a\'b", "a""b", "$$", U&"d\\0061" FROM "T 1"', 'SELECT "a\'b", "a""b", "$$", U&"d\\0061" FROM "T 1"'),
    ("SELECT a -> 'k' ? 'x', b::int::text[] ?| c", "SELECT a -> ? ? ?, b::int::text[] ?| c"),
    ("fooe'x' U & 'y'", "fooe? U & ?"),
    # Comments and white space.
    ("SELECT/* a /* 'b */ c */1--x'\n+ 2 -- 'y", "SELECT ? + ?"),
    ("a*/*c*/b-/**/-c /*/ x */ d", "a* b- -c d"),
    ("  SELECT\t\r\n\x00\x01 a \x7f", "SELECT a"),
    # Lists.
    ("WHERE a IN (1, 2,3 , -4) AND b IN ('x')", "WHERE a IN (?) AND b IN (?)"),
    ("VALUES (1, 'a'), (2, 'b'),(3,'c')", "VALUES (?)"),
    ("VALUES (1, now(), $1), (2, now(), $1), (3, now(), $1)", "VALUES (?, now(), $1)"),
    ("ARRAY['a'::text, 'b'::text] || '{1,2}'::int[]", "ARRAY[?::text] || ?::int[]"),
    ("WHERE a IN ($1, $2)", "WHERE a IN ($1, $2)"),
    # Doubt prints less: does the backslash escape? is a "name" a name?
    (r"VALUES ('c:\', 'secret')", "VALUES (?…"),
    (r"VALUES ('it\'s secret', 2)", "VALUES (?…"),
    (r"VALUES ('a\\', 'b\n', c)", "VALUES (?, c)"),
    ("E'a'\n'b\\' secret'", "?…"),
    (f'WHERE a = "{"s" * 64}" AND {"t" * 64} = $123456', "WHERE a = ? AND ? = ??"),
    # The end of the text ends every state.
    ("SELECT a, 'secr", "SELECT a, ?"),
    ("SELECT a, E'secr\\", "SELECT a, ?"),
    ("SELECT a, $x$ secr $x", "SELECT a, ?"),
    ("SELECT a, $tag", "SELECT a, ?"),
    ('SELECT a, "secr""', "SELECT a, ?"),
    ("SELECT a /* secr /* */", "SELECT a"),
    ("SELECT a -- secr", "SELECT a"),
    ("", ""),
    # Values that are not written as literals, in statements that run and in those that fail.
    ("SET my.api_key TO sk_live_x", "SET my.api_key TO ?"),
    ("SET LOCAL my.api_key=sk_live_x, b; SELECT a", "SET LOCAL my.api_key=?; SELECT a"),
    ('SET "my"."key" = "a;b"', 'SET "my"."key" = ?'),
    ("set @@session.key := x; SET @key = y", "set @@session.key := ?; SET @key = ?"),
    ("SET my.api_key sk_live_x", "SET my.api_key ?"),
    ("SET PASSWORD FOR bob = geheim", "SET PASSWORD ?"),
    ("ALTER ROLE app SET my.api_key TO sk_live_x", "ALTER ROLE app SET my.api_key TO ?"),
    ("ALTER ROLE bob PASSWORD my secret", "ALTER ROLE bob PASSWORD ?"),
    ('CREATE USER bob WITH PASSWORD "geheim"', "CREATE USER bob WITH PASSWORD ?"),
    ("CREATE USER bob PASSWORD `geheim`", "CREATE USER bob PASSWORD ?"),
    ("CREATE USER bob IDENTIFIED BY geheim", "CREATE USER bob IDENTIFIED BY ?"),
    ('SELECT WHERE "x" AND password = "geheim" OR "api_key" LIKE "k"',
     'SELECT WHERE "x" AND password = ? OR "api_key" LIKE ?'),
    ("SELECT `a` FROM `b", "SELECT ? FROM ?"),
    ("WHERE mail = jane.doe+7@example.com AND b", "WHERE mail = ? AND b"),
    ("WHERE mail = 4711@1and1.de, postgres://me:pw@db/shop", "WHERE mail = ?, postgres://me:?/shop"),
    ("WHERE token = eyJhbGciOi.eyJzdWIiOiIx.SflKx-w", "WHERE token = ?"),
    (f"WHERE token = {'e' * 70}.{'y' * 70}.SflKx", "WHERE token = ?"),
    ("WHERE a = \u2018it\u2019s secret\u2019 AND b", "WHERE a = ?…"),
    ("WHERE a = \u201csecret\u201d AND b", "WHERE a = ?…"),
    ("WHERE a = \x93secret\x94", "WHERE a = ?…"),
    ("WHERE a = \ufffdsecret\ufffd", "WHERE a = ?…"),
    # What looks like them and is none.
    ("SET TIME ZONE utc; SET ROLE app", "SET TIME ZONE utc; SET ROLE app"),
    ("SET SESSION AUTHORIZATION bob", "SET SESSION AUTHORIZATION bob"),
    ("SET TRANSACTION READ ONLY; RESET a", "SET TRANSACTION READ ONLY; RESET a"),
    ("UPDATE users SET password = crypt($1, b), a = b.c", "UPDATE users SET password = crypt($1, b), a = b.c"),
    ('SELECT "u"."password", "u"."token" FROM "tokens" WHERE "t"."token" = "u"."id"',
     'SELECT "u"."password", "u"."token" FROM "tokens" WHERE "t"."token" = "u"."id"'),
    ("ALTER ROLE bob PASSWORD NULL; ALTER TABLE users ADD password text",
     "ALTER ROLE bob PASSWORD NULL; ALTER TABLE users ADD password text"),
    ("SELECT a @> b, c <@ d, e @@ f, @ g, h @? i, k @@@ l", "SELECT a @> b, c <@ d, e @@ f, @ g, h @? i, k @@@ l"),
    ("SELECT n\ufffdme FROM t", "SELECT n\ufffdme FROM t"),
    # Nothing that a terminal or a label could stumble on.
    ('SELECT a\u202eb, "x\ny", c\ud800 FROM d', 'SELECT a_b, "x_y", c_ FROM d'),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), REDACTED)
def test_redact(sql: str, expected: str) -> None:
    """Literals become `?`, names and parameters stay, and redacting again changes nothing."""
    assert _redact(sql) == expected
    assert _redact(expected) == expected


#: Letters and digits that occur only in literals and comments. None may ever be printed.
SECRET = "þðœ789"
_noise = st.text(alphabet=SECRET[:3] + "ab1'\\$\"-/*;,() \n%?E", max_size=12)


def _quoted(body: str, *, backslash_escapes: bool) -> str:
    if backslash_escapes:
        body = body.replace("\\", "\\\\").replace("'", "\\'", 1)
    return "'" + body.replace("\\'", "\0").replace("'", "''").replace("\0", "\\'") + "'"


def _plain(body: str, *, conforming: bool) -> str:
    doubled = body.replace("'", "''")
    return f"'{doubled}'" if conforming else _quoted(body, backslash_escapes=True)


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Generate a text that PostgreSQL's scanner could read, with `standard_conforming_strings` on or off."""
    conforming = draw(st.booleans())
    literal = st.one_of(
        _noise.map(lambda body: _plain(f"þ{body}ð", conforming=conforming)),
        _noise.map(lambda body: _plain(body, conforming=conforming)),
        _noise.map(lambda body: "E" + _quoted(f"{body}þð", backslash_escapes=True)),
        _noise.map(lambda body: f"$q$þ{body.replace('$', '')}œ$q$"),
        _noise.map(lambda body: f"$$þ{body.replace('$', '')}œ$$"),
        st.from_regex(r"[789]{1,5}(\.[789]*)?([eE][+-]?[789]{1,2})?|0x[789]+|\.[789]+", fullmatch=True),
    )
    code = st.sampled_from(
        ["SELECT", "a", '"b"', "t1.c", "=", ",", "(", ")", "IN", "$1", "::text", "VALUES", "||", "FROM orders", ";"]
    )
    comment = st.one_of(
        _noise.map(lambda body: f"/*þ{body.replace('/', '').replace('*', '')}*/"),
        _noise.map(lambda body: "--þ" + body.replace("\n", "") + "\n"),
    )
    pieces = draw(st.lists(st.one_of(literal, literal, code, code, comment), max_size=14))
    spaces = draw(st.lists(st.sampled_from([" ", "\n", "  "]), min_size=len(pieces), max_size=len(pieces)))
    return "".join(space + piece for space, piece in zip(spaces, pieces, strict=True))


@pytest.mark.promise("Literals of statements stay secret.")
@given(statements())
@example(r"SELECT 'c:\' , 'þð'")
@example(r"SELECT 'it\'s þð' , 'œ'")
@example("SELECT E'a' \n'b\\' þð'")
def test_no_cut_lets_a_literal_through(sql: str) -> None:
    """Wherever the server cuts a text, no character of a literal or a comment appears in any output."""
    for cut in range(len(sql) + 1):
        statement = parse_statement(sql[:cut])
        printed = _redact(sql[:cut]) + statement.text + statement.summary + statement.site
        assert not set(SECRET) & set(printed), (sql[:cut], printed)


#: What a value may be put into, so that it is no literal of PostgreSQL: `%s` is the value.
FORMS = [
    "SET my.key TO %s", "SET my.key = %s", 'SET my.key = "%s"', "SET my.key='%s'", "SET SESSION my.key %s",
    "SET my.key = a, %s", "BEGIN; SET LOCAL my.key TO %s", "SET @key := %s", "SET PASSWORD FOR bob = %s",
    "ALTER ROLE bob SET my.key = %s", "ALTER SYSTEM SET my.key TO '%s'", 'ALTER DATABASE shop SET a.b TO "%s"',
    'ALTER ROLE bob PASSWORD "%s"', "ALTER ROLE bob PASSWORD `%s`", "CREATE USER bob WITH ENCRYPTED PASSWORD %s",
    "CREATE ROLE bob LOGIN PASSWORD = not %s", 'CREATE USER bob IDENTIFIED BY "%s"',
    "CREATE USER bob IDENTIFIED BY %s", 'SELECT a FROM users WHERE password = "%s"',
    'SELECT a FROM users WHERE "api_key"="%s"', "SELECT `%s` FROM a", "SELECT a FROM b WHERE c = \u2018%s\u2019",
    "SELECT a FROM b WHERE c = \u201c%s\u201d AND d = \u2018e\u2019", "SELECT a FROM b WHERE c = \u201e%s\u201c",
    "SELECT a FROM b WHERE c = \u00ab%s\u00bb", "SELECT a FROM b WHERE c = \u00b4%s\u00b4",
    "SELECT a FROM b WHERE c = \x91%s\x92", "SELECT a FROM b WHERE c = \uff02%s\uff02",
    "SELECT a FROM b WHERE c = \ufffd%s\ufffd", "SELECT a FROM b WHERE c=a\u2018%s\u2019",
    "SELECT a FROM b WHERE c = jane@%s.example.com", "SELECT a FROM b WHERE c = jane.doe@%s",
    "SELECT a FROM b WHERE c = eyJ%s.a.b", "SELECT a FROM b WHERE c = eyJhbGciOiJIUzI1NiJ9.%s.Sfl-a",
    "SELECT a FROM b WHERE c = 'x%s'", "SELECT a FROM b WHERE c = $$%s$$", "SELECT a FROM b /* %s */",
    "SELECT a -- %s", "%s", "my %s", '"%s"', "SELEC a FROM %s", "SELECT 1; %s", "password: %s", "( %s", "{%s}",
    "\\%s", "BEGIN; x %s", "/*route='/a?b=%s'*/ SELECT 1", "/*route='/a/x@%s.de'*/ SELECT 1",
    "/*controller='a',action='x@%s.de'*/ SELECT 1",
    "/*file='a.py?%s',func='f'*/ a",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10)
@given(before=st.sampled_from(["", "-- a\n", "/* b */ ", " "]), body=st.text("ab1_", max_size=8))
@example("", "")
def test_a_value_in_no_form_of_a_literal_never_comes_out(form: str, before: str, body: str) -> None:
    """Wherever the server cuts the text, not even a part of the value is in any output."""
    secret = f"kþ{body}ð"
    sql = before + form.replace("%s", secret)
    for cut in range(len(sql) + 1):
        statement = parse_statement(sql[:cut])
        printed = f"{statement.text}{statement.summary}{statement.site}{statement.tags}{statement.recordable}"
        assert not {"þ", "ð"} & set(printed), (sql[:cut], printed)


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("hunter2", NO_SQL),
        ("my password is hunter2;", NO_SQL + ";"),
        ('"hunter2"', NO_SQL),
        ("?hunter2", NO_SQL),
        ("SELECTED a", NO_SQL),
        ("SELECT$a", NO_SQL),
        ("SELECT 1; hunter2; SELECT a", "SELECT ?; (no SQL); SELECT a"),
        ('SELECT "a;b"; COMMIT', 'SELECT "a;b"; COMMIT'),
        ("(SELECT 1) UNION (SELECT a)", "(SELECT ?) UNION (SELECT a)"),
        ("show pools", "show pools"),
        ("SHOW TABLES LIKE 'a'", "SHOW TABLES LIKE ?"),
        ("DESCRIBE orders", "DESCRIBE orders"),
        ("<FASTPATH>", "<FASTPATH>"),
        ("'x'", "?"),
        (";;", ";;"),
    ],
)
def test_what_is_no_sql_is_not_shown(sql: str, shown: str) -> None:
    """It begins with no command of PostgreSQL, of its poolers or of MySQL, so that nobody knows what it is."""
    statement = parse_statement(sql)
    assert statement.text == shown
    assert parse_statement(statement.recordable) == statement
    assert "hunter2" not in f"{statement.summary}{statement.site}"


ROUTES = {
    "/orders/{id}": "/orders/{id}",
    "/api/v2/orders/<int:id>/:item": "/api/v2/orders/<int:id>/:item",
    "^orders/(?P<pk>[^/]+)/(?:items)$": "^orders/(?P<pk>[^/]+)/(?:items)$",
    "/orders/4711": "/orders/{}",
    "/orders/4711?mail=jane@example.com&token=x": "/orders/{}",
    "/orders/order-4711/42/items": "/orders/order-{}/{}/items",
    "/users/jane.doe@example.com/mails": "/users/{}/mails",
    "/a/6f9619ff-8b86-d011-b42d-00c04fc964ff/b": "/a/{}/b",
    "/a/6F9619FF8B86D011/b": "/a/{}/b",
    "/a/deadbeef1": "/a/{}",
    "/hosts/10.0.0.7/fe80::1:2": "/hosts/{}/{}",
    "/days/2024-05-01": "/days/{}",
    "/reset/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.abc": "/reset/{}",
    "/reset/sk_live_4eC39HqLyjWDarjtT1zdp7dc": "/reset/{}",
    "/reset/dBjftJeZ4CVP-mBKKuhbUJU1pr": "/reset/{}",
    "/oauth2/callback/utf8/base64": "/oauth2/callback/utf8/base64",
    "Api::V2::OrdersController#index": "Api::V2::OrdersController#index",
    "valid?": "valid",
    "/-/1": "/-/{}",
}  # fmt: skip


@pytest.mark.parametrize(("route", "kept"), ROUTES.items())
def test_a_route_is_a_template(route: str, kept: str) -> None:
    """What a request has put into it becomes `{}`, so that it is in no label, and the number of routes stays small."""
    statement = parse_statement(f"SELECT 1 /*route='{route}'*/")
    assert (statement.site, statement.tags) == (kept, (("route", kept),))


@given(st.text("/a1?:.@-_ ", max_size=500) | st.text(max_size=300), st.sampled_from(["route", "line", "func"]))
@example("1 ", "route")
def test_a_tag_is_read_again_as_it_was(value: str, key: str) -> None:
    """From a recording, and however long it was."""
    tags = tags_of([Comment(f"{key}='{quote(value)}'", complete=True)])
    assert tags_of([Comment(written(tags).removeprefix("/*").removesuffix("*/"), complete=True)]) == tags


#: What values that are no literals are told by.
PIECES = [
    *(
        "SET ",
        "ALTER ROLE ",
        "CREATE ",
        "PASSWORD ",
        "IDENTIFIED BY ",
        "SELECT ",
        "TO ",
        "= ",
        "token ",
        '"token"',
        '"a"',
    ),
    *("a", "@", "a@b", "?", ".", "eyJ", "`", "'x'", "1", "\u2018", "-", "b.c", ":", ";", ",", "?, ?", " ", "(", ")"),
]

anything = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.text(alphabet="aE1_$'\"\\-/*?,;:(). \n\x00\x85é=nUx&kf", max_size=80),
    st.text(max_size=80),
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "L", "N", "P"])),
    statements(),
)


@given(anything)
@example("\x80$$ $$")
@example("?::int, ?x, ?")
@example('"a""')
@example("-\x01- 'x'")
def test_any_text_is_redacted_once(sql: str) -> None:
    """Any text can be redacted. The result is printable and does not change when it is redacted again."""
    once = _redact(sql)
    assert _redact(once) == once
    assert once.isprintable()
    assert not set(once) & set("\r\n\t\0")


@given(anything)
@example("/*route='\\x1b'*/")
@example("/*route='%0a',job='%ED%A0%80',file='%27'*/ SELECT 1")
def test_any_text_makes_a_statement(sql: str) -> None:
    """For any text, the site can be a label, and the recorded form parses to the same statement."""
    statement = parse_statement(sql)
    assert 0 < len(statement.summary) <= 60
    assert 0 < len(statement.site) <= 120
    assert statement.site.isprintable()
    recordable = statement.recordable
    assert recordable is None or parse_statement(recordable) == statement


@pytest.mark.parametrize(
    "piece",
    ["'", "/*", "$a$", '"', "$", "\\'", "E'\\", "--\n", "/* */", "(", "()", "((a)", "), (", "?, ", "'a' ", "a", "1.",
     ";", "'a\\',", "\x85", "/*k='v',*/", "FROM a,", "FROM a a,", "WITH a AS (", "BEGIN;", "a.b,", "TRIM (",
     "`", "\u2018", "a.", "a@", "?.", "eyJ", "SET a = b;", "SET a ", "ALTER SET a ", "ALTER ROLE PASSWORD ", 'token "',
     "CREATE SET ", "a;", "/*route='/a'*/", "?-", ":", "a1", "A1", "/1", "a-"],
)  # fmt: skip
@pytest.mark.timeout(10, func_only=True)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """100 kB of anything are read before the deadline: linear time takes 0.1 s, quadratic time minutes."""
    sql = piece * (100_000 // len(piece))
    scan(sql)
    parse_statement(sql)
    parse_statement(f"/*route='{quote(sql[:2500])}'*/")


TAGGED = [
    # OpenTelemetry: sorted, reprs, integers bare, `%` doubled or not.
    ("SELECT 1 /*controller='it%27s',db_framework='sqlalchemy%3A2',n=7,route='/a/%7Bb%7D',traceparent='00-1-2-01'*/",
     {"controller": "it's", "db_framework": "sqlalchemy:2", "route": "/a/{b}"}),
    ("SELECT 1 /*db_driver='psycopg%%3A3.3',route='/a/%%7Bb%%7D'*/;", {"db_driver": "psycopg:3.3", "route": "/a/{b}"}),
    ('SELECT 1 /*action=7,route="/a"*/', {"action": "{}", "route": "/a"}),
    # Several comments, prepended ones, other comments; the first of a key counts.
    ("/*route='/a'*/ SELECT /*+ HashJoin(a b) */ 1 /* file is old */ /*route='/b', file='x.py' , func='f'*/",
     {"route": "/a", "file": "x.py", "func": "f"}),
    ("-- route='/a'\nSELECT 1", {"route": "/a"}),
    ("/*application:App,controller:users,action:show,job:Mail::Job,line:/app/x.rb:12:in `y'*/ SELECT 1",
     {"application": "App", "controller": "users", "action": "show", "job": "Mail::Job",
      "line": "/app/x.rb:12:in `y'"}),
    ("/*line:/app/x.rb:12:in `block in y' - z*/ SELECT 1 /* file: read by a loop */", {}),
    ("/*source_location='app%2Fx.rb%3A12%3Ain%20%27X%23y%27',namespaced_controller='Api%3A%3AOrders'*/ SELECT 1",
     {"source_location": "app/x.rb:12:in 'X#y'", "namespaced_controller": "Api::Orders"}),
    ("/*dddbs='orders-db',dde='prod',ddps='orders',ddpv='1.2',traceparent='00-1-2-01'*/ SELECT 1",
     {"dddbs": "orders-db", "ddps": "orders"}),
    ("SELECT 1 /*code.file.path='app/x.py',code.lineno=41,code.function.name='read'*/",
     {"code.file.path": "app/x.py", "code.lineno": "41", "code.function.name": "read"}),
    # Names of programs stay as they are.
    ("SELECT 1 /*application='shop-2024',framework='django:5.2.1',route='/a/2024'*/",
     {"application": "shop-2024", "framework": "django:5.2.1", "route": "/a/{}"}),
    # Escapes of quotes.
    (r"SELECT 1 /*route='it\'s',app_name='a b'*/", {"route": "it's", "app_name": "a b"}),
    # Inside a literal or a name there are no comments.
    ("SELECT '/*route=''/a''*/', $$/*route='/a'*/$$, \"/*job:x*/\"", {}),
    ("SELECT 'it''s /*' /*route='/a'*/", {"route": "/a"}),
    # Not tags.
    ("SELECT 1 /* file='x' is wrong */ /* action: to do */ /*traceparent='00-1-2-01'*/ /*route=''*/ /*ROUTE='x'*/", {}),
    # Unprintable characters go, length is bounded.
    ("SELECT 1 /*route='a%0A%1B%E2%80%AEb',file='" + "x" * 500 + "'*/", {"route": "ab", "file": "x" * 200}),
    # Cut: complete pairs are kept; a value without quotes may be half of one.
    ("SELECT 1 /*controller='c',route='/a%2", {"controller": "c"}),
    ("SELECT 1 /*controller='c'", {"controller": "c"}),
    ("SELECT 1 /*application:App,controller:us", {"application": "App"}),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), TAGGED)
def test_tags(sql: str, expected: dict[str, str]) -> None:
    """Known tags of real comments are found in each written form."""
    assert parse_statement(sql).tags == tuple(sorted(expected.items()))


@pytest.mark.parametrize("sql", [sql for sql, pairs in TAGGED if pairs])
def test_a_cut_invents_no_tag(sql: str) -> None:
    """A cut text never yields a tag that the whole text does not have."""
    whole = set(parse_statement(sql).tags)
    for cut in range(len(sql)):
        assert set(parse_statement(sql[:cut]).tags) <= whole, sql[:cut]


KINDS = {
    StatementKind.NEVER_USED: [
        "", "SET application_name = 'PostgreSQL JDBC Driver'", "SET extra_float_digits = 3; SET datestyle TO 'ISO'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "show standard_conforming_strings",
        "SELECT set_config('search_path', $1, false), set_config('role', $2, false)", "select pg_catalog.version()",
        "SELECT * FROM current_schema()", "SELECT current_database(), current_user",
        "SELECT version();\n\nSELECT t.oid FROM pg_type AS t JOIN pg_namespace AS ns ON (ns.oid = typnamespace)",
        "SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'",
        "WITH RECURSIVE tree(oid) AS (SELECT oid FROM pg_catalog.pg_type) SELECT DISTINCT * FROM tree",
    ],
    StatementKind.RETURNED: [
        "ROLLBACK", "ROLLBACK;", "COMMIT", "COMMIT;", "commit work", "END", "ABORT TRANSACTION;",
        "ROLLBACK AND NO CHAIN", "DISCARD ALL", "RESET ALL;", "DEALLOCATE ALL", "SET SESSION AUTHORIZATION DEFAULT",
        "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
        ";", " ", "-- ping", "/* pool */ ROLLBACK /*route='/a'*/", "BEGIN; COMMIT",
    ],
    StatementKind.TRANSACTION_OPENED: [
        "BEGIN", "BEGIN;", "begin transaction", "START TRANSACTION", "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE;", "BEGIN READ ONLY",
        "COMMIT; BEGIN", "BEGIN; SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ],
    StatementKind.LISTENING: ["LISTEN jobs", 'listen "my jobs";', "LISTEN a; LISTEN b"],
    StatementKind.PROBED: ["SELECT 1", "select 1;", "SELECT 1 AS ok", "SELECT 'x'"],
    StatementKind.APPLICATION: [
        "SELECT * FROM t", "UPDATE t SET a = 1", "ROLLBACK AND CHAIN", "COMMIT AND CHAIN", "ROLLBACK TO SAVEPOINT x",
        "COMMIT PREPARED 'x'", "SAVEPOINT x", "RELEASE SAVEPOINT x", "BEGIN; SELECT a FROM t; COMMIT", "SELECT $1",
        "SELECT pg_advisory_unlock(1)", "SET LOCAL a = 1", "SET app.tenant = '7'", "RESET statement_timeout",
        "CLOSE a", "UNLISTEN a", "DEALLOCATE a", "DO $$ $$", "SELECT 'c:\\' /*", "<FASTPATH>", "'ROLLBACK'",
        "SELECT version() FROM orders", "SELECT t.oid FROM pg_type t, orders o", "SELECT * FROM pg_stat_activity",
    ],
    StatementKind.UNKNOWN: ["<insufficient privilege>", "<command string not enabled>"],
}  # fmt: skip


@pytest.mark.parametrize(("sql", "kind"), [(sql, kind) for kind, texts in KINDS.items() for sql in texts])
def test_kind(sql: str, kind: StatementKind) -> None:
    """A statement is classified by its text without comments, and its recorded form in the same way."""
    statement = parse_statement(sql)
    assert statement.kind is kind
    assert parse_statement(statement.recordable).kind is kind


SITES = [
    ("SELECT * FROM orders WHERE id = 1", "SELECT orders"),
    ("update only accounts set a = 1", "UPDATE accounts"),
    ("INSERT INTO public.orders(a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = 1", "INSERT orders"),
    ('DELETE FROM "public"."Order Items" USING x', "DELETE Order Items, x"),
    ("SELECT * FROM orders o, customers AS c JOIN orders p ON true", "SELECT orders, customers"),
    ("SELECT extract(year FROM at) FROM events WHERE a IS DISTINCT FROM b FOR UPDATE OF events", "SELECT events"),
    ("SELECT * FROM (SELECT a FROM orders) x, generate_series(1, 2)", "SELECT orders"),
    ("WITH new(a) AS (SELECT 1 FROM src), b AS (SELECT 2 FROM new) UPDATE t SET a = 1 FROM b", "UPDATE t, src"),
    ("WITH new AS (SELECT a FROM src", "WITH src"),
    ("MERGE INTO a USING b ON true", "MERGE a, b"),
    # Cut before FROM: the columns tell.
    ("SELECT order_items.id, order_items.order_id, order_items.pri", "SELECT order_items"),
    ("BEGIN; SET LOCAL a = 1; SELECT * FROM orders", "SELECT orders"),
    ('DECLARE "cur_139" CURSOR FOR SELECT * FROM orders', "DECLARE orders"),
    ("SAVEPOINT s139_x4", "SAVEPOINT s?_x?"),
    ("select pg_sleep($1), 5", "SELECT pg_sleep($1), ?"),
    ("ROLLBACK;", "ROLLBACK"),
    ("BEGIN;", "BEGIN"),
    ("VACUUM orders", "VACUUM orders"),
    (f"SELECT a FROM {', '.join(['table_of_things'] * 2 + ['b' * 60])}", "SELECT table_of_things, " + "b" * 35 + "…"),
    ("'x'", "?"),
    ("", "(none)"),
    ("SELECT 1 /*route='/orders/%7Bid%7D',controller='c',file='f.py'*/", "/orders/{id}"),
    ("SELECT 1 /*controller='orders',action='index',job='j'*/", "orders#index"),
    ("SELECT 1 /*namespaced_controller='Api%3A%3AOrders',controller='orders',action='index'*/", "Api::Orders#index"),
    ("SELECT 1 /*file='app/x.py',func='load',line='4',job='j'*/", "j"),
    ("SELECT 1 /*file='app/x.py',func='load',line='4'*/", "app/x.py:load"),
    ("SELECT 1 /*job='Nightly',framework='x'*/", "Nightly"),
    (f"SELECT 1 /*route='{'x' * 300}'*/", "x" * 119 + "…"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "site"), SITES)
def test_site(sql: str, site: str) -> None:
    """A site is the route, controller, job or function of the tags, else the verb and its tables."""
    assert parse_statement(sql).site == site


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("UPDATE stock SET n = 1", True),
        ("insert into stock values (1)", True),
        ("BEGIN; SELECT 1; DELETE FROM stock", True),
        ("WITH gone AS (DELETE FROM stock RETURNING *) SELECT * FROM gone", True),
        ("WITH a AS (SELECT 1) UPDATE stock SET n = 1", True),
        ("MERGE INTO a USING b ON true", True),
        ("COPY stock (a, b) FROM STDIN", True),
        ("ALTER TABLE stock ADD a int", True),
        ("SELECT * FROM stock WHERE id = $1 FOR UPDATE", True),
        ("SELECT * FROM stock FOR NO KEY UPDATE SKIP LOCKED", True),
        ("COPY stock TO STDOUT", False),
        ("COPY (SELECT * FROM stock) TO STDOUT", False),
        ("SELECT 'UPDATE stock'", False),
        ("SELECT 1 /* UPDATE stock */", False),
        ('SELECT "update", max(updated) FROM stock_updates', False),
        ("COMMIT", False),
        ("", False),
    ],
)
def test_a_write_changes_data_or_locks_rows(sql: str, writes: bool) -> None:
    """It is told by the text alone. A function may write as well; that is not seen."""
    assert parse_statement(sql).writes is writes


def test_unknown_text() -> None:
    """A text that is hidden from the monitoring role is unknown, not empty."""
    assert parse_statement(None) is UNKNOWN_STATEMENT
    assert UNKNOWN_STATEMENT.recordable is None
    assert parse_statement("") != UNKNOWN_STATEMENT


def test_long_text_is_cut_first() -> None:
    """At most 8192 characters are parsed, so that no text fills the memory, and the cut shows no literal."""
    statement = parse_statement("SELECT a, '" + "secret" * 100_000 + "'")
    assert statement.text == "SELECT a, ?"
    assert len(parse_statement("SELECT a" + " , b" * 100_000).text) <= 8192


def test_statement_is_a_value() -> None:
    """Equal texts give equal, hashable statements."""
    first, second = parse_statement("SELECT a FROM t WHERE b = 1"), parse_statement("SELECT a FROM t WHERE b = 2")
    assert first == second
    assert len({first, second}) == 1
    assert isinstance(first, Statement)
