"""An HTTP service whose uploads go on to another machine while they arrive, with nothing spooled: ``upload.py TICKET``.

``POST /files/NAME`` with the file as the body answers with what the other machine stored, once it is verified and on
its disk; that machine runs ``spaceblock receive --yes``. Where its disk is slow, the client's upload becomes slow. A
client that gives up ends its own transfer and no other.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import spaceblock

STATUS = {"no_space": 507, "name": 422, "refused": 403, "stalled": 504, "connection_lost": 502}
"""HTTP's codes for the words of our errors; whatever else happens is 500."""


async def upload(request: Request) -> JSONResponse:
    """Send the body on as it comes."""
    peer: spaceblock.Peer = request.app.state.peer
    item = spaceblock.Item(pieces(request), name=request.path_params["name"])
    try:
        receipt = await peer.send(item)
    except spaceblock.SpaceblockError as error:
        return JSONResponse({"error": error.code, "message": str(error)}, STATUS.get(error.code, 500))
    stored = receipt.items[0]
    return JSONResponse({"path": stored.path, "size": stored.size, "blake3": stored.digest}, 201)


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body, piece by piece; a client that goes away is an error, so that no half file is taken for a whole one."""
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect as error:
        raise ConnectionError("the client went away in the middle of its upload: it may try again") from error


def application(ticket: str) -> Starlette:
    """The service; it connects once, when it starts, and all uploads share the connection."""

    @asynccontextmanager
    async def connected(app: Starlette) -> AsyncGenerator[None, None]:
        async with spaceblock.connect(ticket) as peer:
            app.state.peer = peer
            yield

    return Starlette(routes=[Route("/files/{name:path}", upload, methods=["POST"])], lifespan=connected)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take uploads by HTTP and send them on.")
    parser.add_argument("ticket", help="what the machine that stores them printed")
    parser.add_argument("--port", type=int, default=8000)
    chosen = parser.parse_args()
    uvicorn.run(application(chosen.ticket), host="127.0.0.1", port=chosen.port)


if __name__ == "__main__":
    main()
