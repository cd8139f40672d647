"""LlamaIndex with chunks that the model reads whole: it reads 256 tokens of one, and the default has up to 1,024."""

from functools import partial

import peer_llamaindex

PACKAGES = peer_llamaindex.PACKAGES
Peer = partial(peer_llamaindex.Peer, reads=256)
