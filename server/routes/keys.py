"""Keys, for administrators: add, list, revoke. A key is shown once, in the reply that made it."""

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from server.auth import Claims
from server.base import ForbiddenError, Role
from server.catalog_keys import StoredKey
from server.routes import Admin, face_of, json_response, new_router

router = new_router()


class KeyBody(BaseModel):
    """The claims of a new key; `namespaces` null: all; `groups` null: all documents, whatever their ACL."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    roles: list[Role] = Field(["read"], min_length=1)
    namespaces: list[str] | None = None
    groups: list[str] | None = []
    lifetime_s: float | None = Field(None, gt=0)
    requests_per_minute: float | None = Field(None, ge=0.1, le=60_000)


@router.post("/v1/keys")
async def add_key(body: KeyBody, request: Request, caller: Admin) -> Response:
    """Make a key, of groups that the caller's own has. Raises ForbiddenError for others."""
    if caller.groups is not None and (body.groups is None or not caller.groups.issuperset(body.groups)):
        raise ForbiddenError("a key gives no groups that it has not: make this one with a key of all groups")
    namespaces = None if body.namespaces is None else tuple(body.namespaces)
    groups = None if body.groups is None else tuple(body.groups)
    claims = Claims(tuple(body.roles), namespaces, groups, body.requests_per_minute)
    key, secret = await face_of(request).keys.add(body.name, claims, lifetime_s=body.lifetime_s)
    return json_response({**key_reply(key), "key": secret}, 201)


@router.get("/v1/keys")
async def list_keys(request: Request, _: Admin) -> Response:
    """Every key's claims; none can be read again."""
    keys = await face_of(request).keys.list()
    return json_response({"object": "list", "data": [key_reply(key) for key in keys]})


@router.delete("/v1/keys/{key_id}")
async def revoke_key(key_id: str, request: Request, _: Admin) -> Response:
    """End a key."""
    await face_of(request).keys.revoke(key_id)
    return json_response({"object": "key.revoked", "id": key_id})


def key_reply(key: StoredKey) -> dict[str, object]:
    """A key as it is shown: never its hash."""
    return {
        "object": "key",
        "id": key.id,
        "name": key.name,
        "roles": sorted(key.roles),
        "namespaces": key.namespaces,
        "groups": None if key.groups is None else sorted(key.groups),
        "requests_per_minute": key.requests_per_minute,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
