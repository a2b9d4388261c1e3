"""Secrets in every place where a secret can be: statements, names, comments, tags, connection strings, requests.

In each text, `@@` is the place of the secret. `test_canaries` puts them on a real server and into real connections, and
searches every output for them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PLACE = "@@"
#: The server cuts a text at 1,023 bytes. Less than this, and the secret and the cut lie in the same literal.
_FILLER = "a" * 960
_REST = "b" * 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A secret in one place."""

    name: str
    #: The text around the secret.
    text: str
    secret: str
    #: Whether it is told from a name only where nothing stands before its statement.
    stands_alone: bool = False

    @property
    def planted(self) -> str:
        """The text with the secret."""
        return self.text.replace(PLACE, self.secret)


def _word(number: int) -> str:
    return f"canary{number:03d}kwzx"


def _digits(number: int) -> str:
    """Return a number that occurs nowhere else: no pid, time or port."""
    return f"7{number:03d}360918273"


#: Statements, each left open in a transaction. Some are errors, which the server keeps and shows just the same.
_STATEMENTS = {
    "plain": "SELECT '@@'",
    "doubled quote": "SELECT 'it''s @@'",
    "escape string": r"SELECT E'it\'s @@'",
    "escape string, lower case": r"SELECT e'\\', e'@@'",
    "backslash at the end": r"SELECT 'c:\', '@@'",
    "backslash before a quote": r"SELECT 'it\'s @@'",
    "unicode string": r"SELECT U&'\0061@@'",
    "national string": "SELECT N'@@'",
    "dollar quote": "SELECT $$@@$$",
    "tagged dollar quote": "SELECT $tag$ $$ @@ $tag$",
    "nested dollar quote": "DO $a$ BEGIN PERFORM $b$@@$b$; END $a$",
    "continued on the next line": "SELECT 'a'\n  '@@'",
    "no space before": "SELECT'@@'",
    "typed": "SELECT text '@@'",
    "cast": "SELECT '@@'::text",
    "array": "SELECT ARRAY['a', '@@']",
    "array literal": "SELECT '{@@}'::text[]",
    "JSON": """SELECT '{"token": "@@"}'::jsonb""",
    "JSON path": "SELECT '{}'::jsonb -> '@@'",
    "IN": "SELECT 1 WHERE 'a' IN ('b', '@@')",
    "LIKE": "SELECT 1 WHERE 'a' LIKE '%@@%'",
    "rows": "SELECT * FROM (VALUES (1, 'a'), (2, '@@')) AS t",
    "second statement": "SELECT 1; SELECT '@@'",
    "prepared": "PREPARE p AS SELECT '@@'",
    "executed": "EXECUTE p('@@')",
    "cursor": "DECLARE c CURSOR FOR SELECT '@@'",
    "function": "SELECT upper('@@')",
    "set_config": "SELECT set_config('my.key', '@@', false)",
    "SET in quotes": "SET my.key = '@@'",
    "NOTIFY": "NOTIFY c, '@@'",
    "password of a role": "CREATE ROLE canary_role PASSWORD '@@'",
    "comment on an object": "COMMENT ON DATABASE postgres IS '@@'",
    "COPY": "COPY (SELECT '@@') TO STDOUT",
    "EXPLAIN": "EXPLAIN SELECT '@@'",
    "no such table": "SELECT * FROM nowhere WHERE token = '@@'",
    "no such column": "UPDATE pg_class SET nothing = '@@' WHERE false",
    "misspelt keyword": "SELEC * FROM orders WHERE token = '@@'",
    "unclosed": "SELECT 'a, @@",
    "line comment": "SELECT 1 -- @@",
    "line comment with a quote": "SELECT 1 --' @@\n",
    "block comment": "SELECT 1 /* @@ */",
    "nested comment": "SELECT 1 /* a /* @@ */ b */",
    "unknown tag": "SELECT 1 /*traceparent='00-@@-01'*/",
    "unknown tag of Rails": "SELECT 1 /*user_id:@@*/",
    "cut in a string": f"SELECT '{_FILLER}', '@@{_REST}'",
    "cut in an escape string": rf"SELECT '{_FILLER}', E'\'@@{_REST}'",
    "cut in a dollar quote": f"SELECT '{_FILLER}', $x$@@{_REST}$x$",
    "cut in a comment": f"SELECT '{_FILLER}' /* @@{_REST} */",
    "cut in a line comment": f"SELECT '{_FILLER}' -- @@{_REST}",
    "cut in an unknown tag": f"SELECT '{_FILLER}' /*tracestate='@@{_REST}'*/",
    "cut in a quoted name": f"""SELECT '{_FILLER}' AS "@@{_REST}" """,
    "cut after a doubled quote": f"SELECT '{_FILLER}', 'it''s @@''{_REST}'",
}
#: Values that are no literals. They are known by what the whole statement is, so each stands alone.
_UNQUOTED = {
    "SET without quotes": "SET my.key TO @@",
    "SET in double quotes": 'SET my.key TO "@@"',
    "password in double quotes": 'ALTER ROLE postgres PASSWORD "@@"',
    "backticks": "SELECT * FROM users WHERE email = `@@`",
    "smart quotes": "SELECT * FROM users WHERE email = \u2018@@\u2019",
    "address without quotes": "SELECT * FROM users WHERE email = @@@example.org",
    "token without quotes": "SELECT * FROM users WHERE token = eyJhbGci.@@.sig",
    "no SQL": "my password is @@",
    "a command line": "psql postgresql://app:@@@db/shop",
    "query string of a route": "SELECT 1 /*route='/reset%3Ftoken=@@'*/",
    "address in a route": "SELECT 1 /*route='/users/@@%40example.org'*/",
}
_NUMBERS = {
    "integer": "SELECT @@",
    "negative": "SELECT -@@",
    "compared": "SELECT 1 WHERE 1 = @@",
    "decimal": "SELECT @@.5, .@@",
    "exponent": "SELECT @@e5",
    "underscores": "SELECT 1_@@",
    "letters behind": "SELECT @@abc",
    "hexadecimal string": "SELECT x'@@'",
    "bit string": "SELECT b'@@'",
    "LIMIT": "SELECT 1 LIMIT @@",
    "number in a route": "SELECT 1 /*route='/users/@@/orders'*/",
    "cut in a number": f"SELECT '{_FILLER + 'a' * 30}', @@{'1' * 200}",
}


def statements() -> Iterator[Canary]:
    """Yield the canaries in statements."""
    number = 0
    for table, secret in ((_STATEMENTS, _word), (_UNQUOTED, _word), (_NUMBERS, _digits)):
        for name, text in table.items():
            number += 1
            yield Canary(name=name, text=text, secret=secret(number), stands_alone=table is _UNQUOTED)


#: What is shown by design: where it comes from, and how it is put there.
_SHOWN = {
    "name of a table": "SELECT 1 FROM @@",
    "name of a column": "SELECT @@ FROM orders",
    "quoted name": 'SELECT 1 FROM "@@"',
    "double quotes around a value": 'SELECT * FROM users WHERE email = "@@"',
    "template of a route": "SELECT 1 /*route='/@@/{id}'*/",
    "controller and action": "SELECT 1 /*controller:@@,action:show*/",
    "function in the code": "SELECT 1 /*file='orders.py',line='41',func='@@'*/",
    "application in a tag": "SELECT 1 /*application='@@'*/",
}


def shown() -> Iterator[Canary]:
    """Yield what comes out on purpose."""
    for number, (name, text) in enumerate(_SHOWN.items()):
        yield Canary(name=name, text=text, secret=_word(900 + number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A way to give a password. `{port}` and `{folder}` stand in the texts."""

    #: Its role, too, and the name of its server.
    name: str
    secret: str
    dsn: str
    #: Further settings of the server.
    settings: str = ""
    #: It would be used for other servers too, so it is tried alone.
    variables: Mapping[str, str] = field(default_factory=dict)


_AT = "127.0.0.1:{port}/postgres"


def logins() -> Iterator[Login]:
    """Yield every way to give a password, of which the right one lets the daemon in."""
    number = 500
    for name, dsn, settings in (
        ("uri", f"postgresql://uri:@@@{_AT}", ""),
        ("encoded", f"postgresql://encoded:%40%2F{PLACE}%3A@{_AT}", ""),
        ("keywords", "host=127.0.0.1 port={port} user=keywords password=@@ dbname=postgres", ""),
        ("quoted", "host=127.0.0.1 port={port} user=quoted password='a \\'@@' dbname=postgres", ""),
        ("parameter", f"postgresql://parameter@{_AT}?password=@@", ""),
        ("service", "postgresql:///?service=canary", ""),
        ("file", f"postgresql://file@{_AT}", "password_file: {folder}/password"),
        ("key", f"postgresql://postgres@{_AT}?sslpassword=@@", ""),
        ("options", f"postgresql://postgres@{_AT}?options=-c%20my.token%3D@@", ""),
    ):
        number += 1
        secret = _word(number)
        yield Login(name=name, secret=secret, dsn=dsn.replace(PLACE, secret), settings=settings)
    variable, file = _word(521), _word(522)
    yield Login(
        name="variable", secret=variable, dsn=f"postgresql://variable@{_AT}", variables={"PGPASSWORD": variable}
    )
    variables = {"PGPASSFILE": "{folder}/passfile"}
    yield Login(name="passfile", secret=file, dsn=f"postgresql://passfile@{_AT}", variables=variables)


#: Connection strings that cannot be used; each is reported.
_BROKEN = {
    "another scheme": "mysql://app:@@@db/shop",
    "no scheme": "app:@@@db/shop",
    "a driver's scheme": "postgresql+asyncpg://app:@@@db/shop",
    "slash in the password": "postgresql://app:a/@@@db/shop",
    "at sign in the password": "postgresql://app:a@@@@db/shop",
    "hash in the password": "postgresql://app:a#@@@db/shop",
    "question mark in the password": "postgresql://app:a?@@@db/shop",
    "space in the password": "postgresql://app:a @@@db/shop",
    "colon in the password": "postgresql://app:a:@@@db:x/shop",
    "bracket in the password": "postgresql://app:[@@@db/shop",
    "keywords, a quote not closed": "host=db password='@@",
    "keywords, a space in the password": "host=db password=a @@ user=app",
    "keywords, a misspelt one": "host=db pasword=@@",
    "a parameter that is misspelt": "postgresql://app@db/shop?pasword=@@",
    "a bare password": "@@",
    "a name with an empty host": "postgresql://app:@@@:99999/shop",
}


def broken_dsns() -> Iterator[Canary]:
    """Yield connection strings that cannot be used."""
    for number, (name, text) in enumerate(_BROKEN.items()):
        yield Canary(name=name, text=text, secret=_word(600 + number))
