"""Who asks: keys with roles, namespaces and groups, of which the catalog keeps hashes alone.

A key is 256 random bits, so a plain sha256 of it cannot be searched for. What a look-up found is kept for CACHE_S.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast, get_args

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.base import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    OverloadedError,
    Principal,
    Role,
    UnauthorizedError,
)
from server.catalog import Catalog
from server.catalog_keys import StoredKey
from server.limits import OPEN_PATHS
from server.rates import Rates
from server.settings import Settings

FIRST_KEY = "key_000000000000"
CACHE_S = 5.0
CACHE_KEYS = 10_000
ROLES: tuple[Role, ...] = get_args(Role)
EVERYONE = Principal("none", "anyone", frozenset(ROLES))
LOCAL = Principal("local", "command line", frozenset(ROLES))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a key may do. `namespaces` ("collection:namespace", "collection:*") None: all; `groups` None: all
    documents, whatever their ACL; `requests_per_minute` None: the setting's. Raises InvalidRequestError."""

    roles: tuple[Role, ...] = ("read",)
    namespaces: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = ()
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        for role in self.roles:
            if role not in ROLES:
                raise InvalidRequestError(f"role {role!r} is not one of {', '.join(ROLES)}", "roles")
        for pattern in self.namespaces or ():
            if not all(pattern.partition(":")):
                raise InvalidRequestError(
                    f"namespace {pattern!r}: write collection:namespace or collection:*", "namespaces"
                )


ADMIN = Claims(roles=ROLES, namespaces=None, groups=None)


class Keys:
    """The keys of a data folder; a look-up's outcome, good or bad, is kept in memory for CACHE_S seconds."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog, self._clock = catalog, clock
        self._cached: dict[str, tuple[float, StoredKey | None]] = {}
        self._revocations = 0  # a look-up that one came between is not kept

    async def add(
        self, name: str, claims: Claims, *, lifetime_s: float | None = None, id_: str | None = None
    ) -> tuple[StoredKey, str]:
        """Make a key; returns it as stored and the secret, which is never seen again.

        Raises ConflictError if there is a key with this id, which is random if none is given.
        """
        secret = f"rd-{secrets.token_urlsafe(32)}"
        now = time.time()
        key = StoredKey(
            id=id_ or f"key_{secrets.token_hex(6)}",
            sha256=_sha256(secret),
            name=name,
            roles=frozenset(claims.roles),
            namespaces=claims.namespaces,
            groups=None if claims.groups is None else frozenset(claims.groups),
            expires_at=None if lifetime_s is None else now + lifetime_s,
            created_at=now,
            requests_per_minute=claims.requests_per_minute,
        )
        await self._catalog.add_key(key)
        return key, secret

    async def list(self) -> list[StoredKey]:
        """All keys ever made, oldest first."""
        return await self._catalog.keys()

    async def revoke(self, id_: str) -> None:
        """End a key, here at once. Raises NotFoundError."""
        await self._catalog.revoke_key(id_)
        self._revocations += 1
        self._cached.clear()

    async def first_admin(self) -> str | None:
        """The secret of a new admin key if there has never been a key, else None; of processes that start together
        one gets it, since its id is the same for all."""
        if await self.list():
            return None
        try:
            return (await self.add("admin", ADMIN, id_=FIRST_KEY))[1]
        except ConflictError:
            return None

    async def principal(self, secret: str) -> Principal:
        """Whose key this is. Raises UnauthorizedError for an unknown, revoked or expired one."""
        sha256 = _sha256(secret)
        until, key = self._cached.get(sha256, (0.0, None))
        if until <= self._clock():
            before = self._revocations
            key = await self._catalog.find_key(sha256)
            if len(self._cached) >= CACHE_KEYS:
                self._cached.clear()
            if self._revocations == before:
                self._cached[sha256] = (self._clock() + CACHE_S, key)
        if key is None or key.revoked_at is not None or (key.expires_at or float("inf")) <= time.time():
            raise UnauthorizedError("this key is unknown, revoked or expired: ask an administrator for one")
        return Principal(key.id, key.name, key.roles, key.namespaces, key.groups, key.requests_per_minute)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Gate(Protocol):
    """Who knows callers by their secret: the catalog's keys, or a model node's one."""

    async def principal(self, secret: str) -> Principal: ...


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may call, and how often."""

    keys: Gate
    rates: Rates


class Authenticate:
    """ASGI: finds out whose key a request carries and whether it may ask again, before a byte of its body is read.

    `local_token` is the lock file's: who can read that file can read the data folder, so it is an admin's.
    """

    def __init__(self, app: ASGIApp, callers: Callers, *, settings: Settings, local_token: str | None) -> None:
        self.app, self.keys, self.rates, self.local_token = app, callers.keys, callers.rates, local_token
        self.required, self.per_minute = settings.keys_required, settings.requests_per_minute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            principal = await self._principal(Headers(scope=scope))
            if principal not in (LOCAL, EVERYONE):
                await self._count(principal)
            scope.setdefault("state", {}).update(principal=principal, authenticate=self._principal)
        await self.app(scope, receive, send)

    async def _count(self, principal: Principal) -> None:
        """Raises OverloadedError if the key's limit is reached."""
        per_minute = principal.requests_per_minute or self.per_minute
        if per_minute and (wait_s := await self.rates.take(principal.key_id, per_minute)):
            raise OverloadedError(
                f"key {principal.key_id} may send {per_minute:g} requests a minute: try again in {wait_s:.1f} s", wait_s
            )

    async def _principal(self, headers: Headers) -> Principal:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        secret = bearer.strip() if scheme.lower() == "bearer" else headers.get("api-key", "")
        if self.local_token and hmac.compare_digest(secret.encode(), self.local_token.encode()):
            return LOCAL
        if not self.required:
            return EVERYONE
        if not secret:
            raise UnauthorizedError("no key: send `Authorization: Bearer rd-…` (or `Api-Key: rd-…`)")
        return await self.keys.principal(secret)


async def check_again(request: Request) -> None:
    """After a long body: whether the key is good still. Raises UnauthorizedError if it was revoked or expired."""
    await request.scope["state"]["authenticate"](request.headers)


def require(role: Role, *, of_some: bool = False) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency: the caller, if the key has `role` (an admin has all). Raises ForbiddenError.

    `of_some`: an administrator of some namespaces will do, and the route sees to it that it is of these.
    """

    async def caller(request: Request) -> Principal:
        principal = cast(Principal, request.scope["state"]["principal"])
        if role not in principal.roles and "admin" not in principal.roles:
            raise ForbiddenError(f"this key may not {role}: it has {', '.join(sorted(principal.roles)) or 'no role'}")
        of_all = role == "admin" and not of_some  # keys, status and repair are of all namespaces
        if of_all and principal.namespaces is not None:
            raise ForbiddenError("this key administers its namespaces' documents alone: use one of all namespaces")
        return principal

    return caller
