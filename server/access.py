"""What a caller may reach: model ids and namespaces resolved against the key's claims.

A namespace that the key may not see is refused in the very words in which a missing one is: nothing tells them apart.
"""

from collections.abc import Collection as Names
from collections.abc import Sequence

from server.base import NamespaceState, NotFoundError, Principal, StoredDocument, UnknownModelError, is_readable
from server.catalog import Catalog
from server.catalog_documents import gone

DEFAULT = "default"


def may_reach(principal: Principal, collection: str, namespace: str) -> bool:
    """Whether the key's claims hold this namespace."""
    if principal.namespaces is None:
        return True
    return not {f"{collection}:{namespace}", f"{collection}:*"}.isdisjoint(principal.namespaces)


def own_namespaces(principal: Principal, collection: str) -> tuple[str, ...]:
    """The namespaces of a collection that the key names one by one."""
    split = (pattern.partition(":") for pattern in dict.fromkeys(principal.namespaces or ()))
    return tuple(name for of, _, name in split if of == collection and name != "*")


def default_namespace(principal: Principal, collection: str) -> str:
    """The namespace meant if none is said: the key's only one, else `default`."""
    own = own_namespaces(principal, collection)
    return own[0] if len(own) == 1 and not may_reach(principal, collection, DEFAULT) else DEFAULT


def resolve(principal: Principal, collection: str, namespaces: Sequence[str] | None) -> tuple[str, ...]:
    """The namespaces a request names, or the one it means. Raises NotFoundError if the key may not reach one."""
    names = tuple(namespaces) if namespaces else (default_namespace(principal, collection),)
    for name in names:
        if not may_reach(principal, collection, name):
            sees_collection = may_see_collection(principal, collection)
            raise no_namespace(collection, name) if sees_collection else no_collection(collection)
    return names


def resolve_one(principal: Principal, collection: str, namespace: str | None) -> str:
    """The one namespace a request names, or means. Raises NotFoundError as `resolve` does."""
    return resolve(principal, collection, [namespace] if namespace else None)[0]


def resolve_model(principal: Principal, model: str, collections: Names[str]) -> tuple[str, str]:
    """The collection and namespace of a model id, `collection` or `collection:namespace`. Raises UnknownModelError."""
    collection, _, name = model.partition(":")
    namespace = name or default_namespace(principal, collection)
    if collection not in collections or not may_reach(principal, collection, namespace):
        raise _no_model(model)
    return collection, namespace


async def existing_model(catalog: Catalog, principal: Principal, model: str, collections: Names[str]) -> str:
    """The collection of a model id, of which a namespace that it names is there. Raises UnknownModelError."""
    collection, namespace = resolve_model(principal, model, collections)
    if model != collection:
        try:
            await catalog.namespace(collection, namespace)
        except NotFoundError as exc:
            raise _no_model(model) from exc
    return collection


def _no_model(model: str) -> UnknownModelError:
    return UnknownModelError(f"no model {model!r}: GET /v1/models lists those that your key may use")


def may_see_collection(principal: Principal, collection: str) -> bool:
    """Whether the key reaches anything of a collection."""
    if principal.namespaces is None:
        return True
    return any(pattern.partition(":")[0] == collection for pattern in principal.namespaces)


def no_collection(collection: str) -> NotFoundError:
    """The catalog's words for a missing collection; a test holds them to it."""
    return NotFoundError(f"there is no collection {collection!r}: ingest into it, or create it")


def no_namespace(collection: str, namespace: str) -> NotFoundError:
    """The catalog's words for a missing namespace; a test holds them to it."""
    return NotFoundError(f"collection {collection!r} has no namespace {namespace!r}: ingest into it first")


async def readable(catalog: Catalog, caller: Principal, document_id: str) -> tuple[NamespaceState, StoredDocument]:
    """A document that the caller may read, and its namespace. Raises NotFoundError, GoneError."""
    place = await catalog.locate(document_id)
    if may_reach(caller, place.collection, place.namespace):
        if place.is_deleted:
            raise gone(document_id)
        state = await catalog.namespace(place.collection, place.namespace)
        document = await catalog.document(state.id, document_id)
        if is_readable(document.groups, caller.groups):
            return state, document
    raise no_document(document_id)


def no_document(document_id: str) -> NotFoundError:
    """The catalog's words for a missing document; a test holds them to it."""
    return NotFoundError(f"there is no document {document_id!r}")
