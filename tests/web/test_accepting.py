import asyncio
import socket
import sys
import textwrap
from contextlib import ExitStack, closing

import httpx
import pytest

PROGRAM = textwrap.dedent("""
    import asyncio, os, resource
    from starlette.responses import PlainTextResponse
    from pgwatch_sessions.web.http_server import Bounds, bind, serving

    async def run():
        listener = bind("127.0.0.1", 0)
        async with serving(PlainTextResponse("answer"), listener, Bounds(deadline=0.5)):
            open_files = max(map(int, os.listdir("/proc/self/fd")))
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 5, open_files + 5))
            print(listener.getsockname()[1], flush=True)
            await asyncio.sleep(60)

    asyncio.run(run())
""")


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it counts open files in /proc")
async def test_too_many_open_files_delay_connections_and_do_not_fill_the_log() -> None:
    """Connections that cannot be accepted wait until others have ended; the log has a line for each second."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=pipe, stderr=pipe)
    assert process.stdout
    port = int(await process.stdout.readline())
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        async with httpx.AsyncClient(timeout=20) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "answer"
    process.terminate()
    _, errors = await process.communicate()
    lines = errors.decode().splitlines()
    assert set(lines) == {"cannot accept connections, trying again in 1 s: Too many open files"}
    assert len(lines) < 10
