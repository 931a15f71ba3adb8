"""The file of users: what it says, and what is refused."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.errors import UsageError
from ferrox.users import User, read_secret, read_users, write_users

MAKER = User("maker", 7, b"m" * 32)
OPERATOR = User("operator", 0, b"o" * 32, "operator")
TEXT = f"""
[users.maker]
account = 7
secret = "{MAKER.secret.hex()}"
role = "trader"
"""


def put(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_users_are_read_by_name(tmp_path):
    assert read_users(put(tmp_path / "users", TEXT)) == {"maker": MAKER}


def test_an_empty_file_has_no_users(tmp_path):
    assert read_users(put(tmp_path / "users", "")) == {}


def test_what_is_written_is_read_again_and_private(tmp_path):
    path = tmp_path / "users"
    before = os.umask(0o277)
    try:
        write_users(path, {"maker": MAKER, "operator": OPERATOR})
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_users(path) == {"maker": MAKER, "operator": OPERATOR}


@given(
    st.lists(
        st.tuples(
            st.text("abzXY09-_", min_size=1, max_size=16),
            st.integers(1, 2**23 - 1),
            st.binary(min_size=16, max_size=64),
        ),
        unique_by=(lambda user: user[0], lambda user: user[1]),
    )
)
def test_whoever_may_be_written_may_be_read(tmp_path_factory, entries):
    users = {name: User(name, account, secret) for name, account, secret in entries}
    path = tmp_path_factory.mktemp("users") / "users"

    write_users(path, users)

    assert read_users(path) == users


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o700 | 0o010])
def test_a_file_that_others_may_access_is_refused(tmp_path, mode):
    path = put(tmp_path / "users", TEXT, mode)

    with pytest.raises(UsageError, match=f"{path}: others may access the file, its mode is {mode:04o}; chmod"):
        read_users(path)


def test_a_file_of_somebody_else_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path / "users", TEXT)
    owner = path.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)

    with pytest.raises(UsageError, match=f"user {owner}'s, and we are {owner + 1}; chown"):
        read_users(path)


def test_a_link_a_pipe_a_directory_and_nothing_are_refused(tmp_path):
    put(tmp_path / "users", TEXT)
    (tmp_path / "link").symlink_to(tmp_path / "users")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)

    for name in ("link", "pipe", "directory", "nothing"):
        with pytest.raises(UsageError, match=f"{tmp_path / name}: "):
            read_users(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("role", "rôle", "not TOML"),
        ("[users.maker]", "[people.maker]", "'people' is not known"),
        ("[users.maker]", "users = 3\n[more]", "'more' is not known"),
        ("[users.maker]", "[users]", "user 'account' is no table"),
        ("role", "duty", "'duty' is not known; the keys are account, secret and role"),
        ('role = "trader"', "", "role is missing"),
        ('"trader"', '"king"', "role 'king' is neither trader nor operator"),
        ('"trader"', '"operator"', "an operator has account 0, not 7"),
        ("= 7", "= 0", "account 0 is the operator's"),
        ("= 7", "= true", "account True is no integer"),
        ("= 7", "= 8388608", "account 8388608 is no integer from 0 to 8388607"),
        (MAKER.secret.hex(), "ab" * 15, "the secret has 15 bytes, 16 are the least"),
        (MAKER.secret.hex(), "abc", "not hexadecimal digits"),
        (f'"{MAKER.secret.hex()}"', "5", "not hexadecimal digits"),
        ("maker", "a_name_of_17_char", "a name is 1 to 16"),
        ("maker", '"two words"', "a name is 1 to 16"),
    ],
)
def test_what_a_file_may_not_say_is_named(tmp_path, old, new, message):
    path = put(tmp_path / "users", TEXT.replace(old, new, 1))

    with pytest.raises(UsageError, match=message) as refused:
        read_users(path)

    assert str(refused.value).startswith(f"{path}: ")


def test_two_users_of_one_account_are_refused(tmp_path):
    path = put(tmp_path / "users", TEXT + TEXT.replace("maker", "taker"))

    with pytest.raises(UsageError, match="users 'maker' and 'taker' have account 7 both"):
        read_users(path)


def test_a_wrong_user_is_not_written_and_a_file_is_not_overwritten(tmp_path):
    path = tmp_path / "users"
    for wrong, message in (
        ([User("maker", 0, b"m" * 32)], "account 0"),
        ([User("maker", 7, b"m" * 15)], "15 bytes"),
        ([User("maker\n", 7, b"m" * 32)], "a name is"),
        ([MAKER, MAKER._replace(account=8)], "one name"),
        ([MAKER, MAKER._replace(name="other")], "account 7 both"),
    ):
        with pytest.raises(UsageError, match=message):
            write_users(path, wrong)
        assert not path.exists()
    write_users(path, [MAKER])

    with pytest.raises(UsageError, match="exists already"):
        write_users(path, [OPERATOR])

    assert read_users(path) == {"maker": MAKER}
    with pytest.raises(UsageError, match="cannot be made"):
        write_users(tmp_path / "nowhere" / "users", [MAKER])


def test_a_user_shows_no_secret():
    assert repr(MAKER) == "User(name='maker', account=7, role='trader')"


def test_one_users_secret_is_read_with_the_same_care(tmp_path):
    path = put(tmp_path / "users", TEXT)
    assert read_secret(path, "maker") == MAKER.secret

    with pytest.raises(UsageError, match="no user 'taker'"):
        read_secret(path, "taker")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others may access"):
        read_secret(path, "maker")
