"""The words for a client whose stack is not known. They fit every language, driver and pool."""

from pgwatch_sessions.wording.stacks.stack import Words

NEUTRAL = Words(
    transaction_causes="an exception, an early return or a cancelled request that skips commit and rollback, or an "
    "external call inside the transaction that never returns",
    stays_open="a response that is streamed, or work that goes on in the background, before the transaction ends",
    begun="a `BEGIN` whose end is skipped",
    connection_causes="a connection that is taken from a pool and not returned, or opened and never closed",
    growth_causes="connections that are opened, or taken from a pool, and never closed",
    abandoned="a pool",
    terminated="Many pools still count terminated connections as in use. If requests still wait for a connection, "
    "restart the application. Which driver it is does not show; the runbook has a section for each.",
    transaction_code="Each must commit or roll back. Move external calls, streams and background work out of the "
    "transaction.",
    connection_code="code that opens connections or takes them from a pool",
    growth_code="connections and pools",
    transaction_guard="a block that ends the transaction on every way out",
    connection_guard="a block that returns the connection on every way out",
)
