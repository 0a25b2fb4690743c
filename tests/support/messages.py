"""Messages of the gateway as bytes, of any fields: also those that no gateway should send."""


def as_sent(*fields: object) -> bytes:
    """Return a message without its length."""
    return "".join(f"{field}\0" for field in fields).encode()


def frame(*fields: object) -> bytes:
    """Return a message as it goes over the wire."""
    payload = as_sent(*fields)
    return len(payload).to_bytes(4, "big") + payload
