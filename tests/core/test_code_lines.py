import pytest

from pgwatch_sessions.core.client_names import tagged_application
from pgwatch_sessions.core.statements import parse_statement


@pytest.mark.parametrize(
    ("comment", "shown"),
    [
        ("route='/orders',file='shop/orders.py',line='41',func='read_order'", "shop/orders.py:41 in read_order"),
        ("file='shop/orders.py',line=41", "shop/orders.py:41"),
        ("file='shop/orders.py',func='read_order'", "shop/orders.py in read_order"),
        ("file='shop/orders.py',line='DROP TABLE'", "shop/orders.py"),
        # Rails with its two forms of a method's name, and Marginalia.
        ("source_location='app%2Fmodels%2Forder.rb%3A12%3Ain%20%60find%27'", "app/models/order.rb:12 in find"),
        ("source_location='app/models/order.rb:12:in%20%27Order%23find%27'", "app/models/order.rb:12 in Order#find"),
        ("source_location:app/models/order.rb:12", "app/models/order.rb:12"),
        ("application:Shop,line:/app/x.rb:12:in `block (2 levels) in y'", "/app/x.rb:12 in block (2 levels) in y"),
        ("line='C%3A/app/x.rb%3A12'", "C:/app/x.rb:12"),
        # OpenTelemetry, with its present and its former keys.
        ("code.file.path='shop/a.py',code.line.number=7,code.function.name='Shop.read'", "shop/a.py:7 in Shop.read"),
        ("code.filepath='shop/a.py',code.lineno=7,code.function='read'", "shop/a.py:7 in read"),
        # The end of a long path has the file's name.
        (f"file='{'x/' * 70}a.py',line='1',func='{'f' * 100}'", f"…{('x/' * 70 + 'a.py')[-79:]}:1 in {'f' * 60}"),
    ],
)  # fmt: skip
def test_the_line_of_code_is_read_from_every_written_form(comment: str, shown: str) -> None:
    """Each library names it in its own keys."""
    assert str(parse_statement(f"/*{comment}*/ SELECT 1").code_line) == shown


@pytest.mark.parametrize("comment", ["", "/*route='/orders'*/", "/*func='read'*/", "/*line='41'*/", "/*line=''*/"])
def test_without_a_file_there_is_no_line(comment: str) -> None:
    """A number or a function alone leads nowhere."""
    assert parse_statement(f"{comment} SELECT 1").code_line is None


@pytest.mark.parametrize(
    ("comment", "application"),
    [
        ("dddbs='orders-db',ddps='orders'", "orders"),
        ("dddbs='orders-db'", "orders-db"),
        ("ddps='orders',application='shop'", "shop"),
        ("route='/orders'", None),
    ],
)
def test_the_service_that_datadog_tags_is_the_application(comment: str, application: str | None) -> None:
    """The service counts before the database's service, and after an explicit name."""
    assert tagged_application(parse_statement(f"/*{comment}*/ SELECT 1")) == application
