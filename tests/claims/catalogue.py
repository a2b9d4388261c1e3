"""All claims, in the order of the document."""

from tests.claims import (
    alerting,
    asyncpg_connections,
    background,
    get_db,
    many_requests,
    memory,
    order_processor,
    pool_settings,
    pool_size,
    unclosed,
)

CLAIMS = (
    *unclosed.CLAIMS,
    *asyncpg_connections.CLAIMS,
    *get_db.CLAIMS,
    *background.CLAIMS,
    *order_processor.CLAIMS,
    *memory.CLAIMS,
    *pool_settings.CLAIMS,
    *alerting.CLAIMS,
    *many_requests.CLAIMS,
    *pool_size.CLAIMS,
)
