"""The users of a service and their secrets: one small TOML file that only its owner may read.

    [users.maker]
    account = 7
    secret = "<64 hexadecimal digits>"
    role = "trader"

The file is opened once and judged by its descriptor, so that what was checked is what is read.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ferrox.entry import SECRET_MIN
from ferrox.errors import UsageError
from ferrox.terms import ACCOUNT_MAX

TRADER: Final = "trader"
OPERATOR: Final = "operator"
SIZE_MAX: Final = 1 << 24
"""Bytes of a users file that are read, at most."""
USER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
KEYS: Final = {"account", "secret", "role"}


class User(NamedTuple):
    """Who may log in, and as what."""

    name: str
    """ASCII, 1 to 16 characters."""
    account: int
    """1 .. 2^23-1, an operator's is 0."""
    secret: bytes
    role: Literal["trader", "operator"] = "trader"

    def __repr__(self) -> str:
        """Leave the secret out: this may stand in a log."""
        return f"User(name={self.name!r}, account={self.account}, role={self.role!r})"


def read_users(path: str | os.PathLike[str]) -> dict[str, User]:
    """Return the users of a file by name; raise `UsageError` that names the file and what to do about it.

    A file that others may access, that is not ours, or that says what it may not say is refused as a whole.
    """
    data = _read_private(path)
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: this is not TOML: {error}; see ferrox.users for the format") from None
    if unknown := sorted(table.keys() - {"users"}):
        raise UsageError(f"{path}: {unknown[0]!r} is not known here; a file of users holds tables [users.NAME] only")
    entries = table.get("users", {})
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: users is no table; write one table [users.NAME] for each user")
    users = {name: _user(path, name, entry) for name, entry in entries.items()}
    _check_accounts(path, users.values())
    return users


def write_users(path: str | os.PathLike[str], users: Mapping[str, User] | Iterable[User]) -> None:
    """Make a file of users that only its owner may read; raise `UsageError` for a path that is taken, or a wrong user.

    It is on disk when this returns.
    """
    chosen = list(users.values() if isinstance(users, Mapping) else users)
    for user in chosen:
        _check(path, user)
    if len({user.name for user in chosen}) < len(chosen):
        raise UsageError(f"{path}: two users have one name; give each its own")
    _check_accounts(path, chosen)
    text = "\n".join(
        f'[users.{user.name}]\naccount = {user.account}\nsecret = "{user.secret.hex()}"\nrole = "{user.role}"\n'
        for user in chosen
    )
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: this file exists already; remove it, or name another") from None
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be made: {error.strerror}; name another place") from None
    try:
        with os.fdopen(file, "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)  # whatever the umask
            stream.write(text.encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            Path(path).unlink()
        raise UsageError(f"{path}: the file cannot be written: {error.strerror}; make room, or name another") from None


def read_secret(path: str | os.PathLike[str], user: str) -> bytes:
    """Return one user's secret of a file of users; raise `UsageError` when it is not there, or the file is refused."""
    users = read_users(path)
    if user not in users:
        raise UsageError(f"{path}: there is no user {user!r}; name one of the file's, or another file")
    return users[user].secret


def _read_private(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular file of ours that nobody else may access."""
    try:
        # O_NONBLOCK: a pipe in the place of the file would hold the reader for ever.
        file = os.open(Path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "put the file itself here, no link to it"
        if isinstance(error, FileNotFoundError):
            hint = "name the file of users in [entry] users, or write one with: ferrox init"
        raise UsageError(f"{path}: the file cannot be opened: {error.strerror}; {hint}") from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise UsageError(f"{path}: this is not a regular file; put the file itself here")
    with os.fdopen(file, "rb") as stream:
        if found.st_uid != os.geteuid():
            raise UsageError(f"{path}: the file is user {found.st_uid}'s, and we are {os.geteuid()}; chown it to us")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise UsageError(f"{path}: others may access the file, its mode is {mode:04o}; chmod it to 0600")
        if found.st_size > SIZE_MAX:
            raise UsageError(f"{path}: the file has {found.st_size} bytes, {SIZE_MAX} are allowed; name the right file")
        return stream.read(SIZE_MAX)


def _user(path: object, name: str, entry: object) -> User:
    """Return one user of a file, or raise."""
    if not isinstance(entry, dict):
        raise UsageError(f"{path}: user {name!r} is no table; write [users.{name}] with account, secret and role")
    if unknown := sorted(entry.keys() - KEYS):
        raise UsageError(f"{path}: user {name!r}: {unknown[0]!r} is not known; the keys are account, secret and role")
    if missing := sorted(KEYS - entry.keys()):
        raise UsageError(f"{path}: user {name!r}: {missing[0]} is missing; the keys are account, secret and role")
    user = User(name, entry["account"], _secret(path, name, entry["secret"]), entry["role"])
    _check(path, user)
    return user


def _secret(path: object, name: str, text: object) -> bytes:
    # What was found is not shown: it may be the secret with one digit wrong.
    if not isinstance(text, str) or not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        raise UsageError(
            f"{path}: user {name!r}: the secret is not hexadecimal digits, two a byte; "
            "make one with secrets.token_hex(32)"
        )
    return bytes.fromhex(text)


def _check(path: object, user: User) -> None:
    """Raise unless a user can be written and read again, and log in."""
    name = user.name
    if not USER_NAME.fullmatch(name):
        raise UsageError(f"{path}: user {name!r}: a name is 1 to 16 ASCII letters, digits, - and _; choose another")
    if user.role not in (TRADER, OPERATOR):
        raise UsageError(f"{path}: user {name!r}: role {user.role!r} is neither {TRADER} nor {OPERATOR}")
    if type(user.account) is not int or not 0 <= user.account <= ACCOUNT_MAX:
        raise UsageError(f"{path}: user {name!r}: account {user.account!r} is no integer from 0 to {ACCOUNT_MAX}")
    if user.role == TRADER and user.account == 0:
        raise UsageError(f"{path}: user {name!r}: account 0 is the operator's; give the trader another")
    if user.role == OPERATOR and user.account != 0:
        raise UsageError(f"{path}: user {name!r}: an operator has account 0, not {user.account}; write account = 0")
    if len(user.secret) < SECRET_MIN:
        raise UsageError(
            f"{path}: user {name!r}: the secret has {len(user.secret)} bytes, {SECRET_MIN} are the "
            "least; make one with secrets.token_hex(32)"
        )


def _check_accounts(path: object, users: Iterable[User]) -> None:
    """Raise when two users have one account: the references of an account are one row (ENTRY-9)."""
    owners: dict[int, str] = {}
    for user in users:
        other = owners.setdefault(user.account, user.name)
        if other != user.name:
            raise UsageError(
                f"{path}: users {other!r} and {user.name!r} have account {user.account} both; give each its own"
            )
