"""Step 0 of the one way, listen: sockets and bytes in, one clean HTTP message out, or a refusal and a closed socket.

    limits      every cap and deadline, with its unit
    rejection   what we answer to what we do not take
    message     which message is clean (pure)
    capacity    how many requests may be under way
    rounds      requests that arrive while others are worked on begin together
    peer        who is at the other end of the socket
    protocol    one connection: parser callbacks, deadlines, the answers that we write ourselves
    server      accepting, admitting, draining

Built on uvicorn's httptools protocol, whose measured faults are the reason for most of what stands here. What is not
guaranteed: that a token, a body or a path means anything; only that every reader of the message reads the same one.
"""

from proxy.listener.capacity import Capacity
from proxy.listener.limits import Limits
from proxy.listener.message import clean_target
from proxy.listener.rejection import Refused
from proxy.listener.server import Listener, bind, serve

__all__ = ["Capacity", "Limits", "Listener", "Refused", "bind", "clean_target", "serve"]
