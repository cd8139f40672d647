"""Keys and passwords of other servers: each is in a file that a setting names."""

from pathlib import Path

from server.base import InvalidRequestError


def read_secret(file: Path | None) -> str | None:
    """What a key file holds, white space around it left out. Raises InvalidRequestError for one without a key."""
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequestError(f"the key file {str(file)!r} cannot be read: {exc}") from exc
    if not secret:
        raise InvalidRequestError(f"the key file {str(file)!r} is empty: it must hold the key")
    if not (secret.isascii() and secret.isprintable()):
        raise InvalidRequestError(
            f"the key file {str(file)!r} holds more than a key: one line of ASCII characters is needed"
        )
    return secret
