import contextlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from streamtwl.errors import UsageError
from streamtwl.messages import decode
from streamtwl.security import ClientKeys, ServerKeys, keys_folder, make_keys
from streamtwl.sinks.journal import Journal
from streamtwl.sinks.publisher import Publisher


@pytest.fixture
def keys(tmp_path) -> Path:
    """A folder with a publisher's key and a subscriber's, which is allowed."""
    folder = tmp_path / "keys"
    make_keys(folder, "server")
    public = make_keys(folder, "client")
    (folder / "clients" / "client.key").write_bytes(public.read_bytes())
    return folder


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(Journal(tmp_path / "journal.sqlite")) as one:
        yield one


def test_keys_are_their_owners_only(keys):
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (keys, *keys.iterdir())}
    assert modes == {
        "keys": 0o700, "clients": 0o700, "server.key": 0o600, "server.key_secret": 0o600,
        "client.key": 0o600, "client.key_secret": 0o600,
    }  # fmt: skip


def test_a_folder_that_others_could_read_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    make_keys(tmp_path, "server")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_what_was_made_is_read(keys):
    server = ServerKeys.load(keys)
    assert len({server.public, server.secret}) == 2
    by_file = ClientKeys.load(keys / "server.key", keys / "client.key_secret")
    by_text = ClientKeys.load(server.public.decode(), keys / "client.key_secret")
    assert by_file == by_text
    assert by_file.server == server.public


def test_secrets_are_not_shown(keys):
    server = ServerKeys.load(keys)
    client = ClientKeys.load(keys / "server.key", keys / "client.key_secret")
    for one in (server, client):
        assert one.secret.decode() not in repr(one)


def test_ones_own_key_is_in_the_users_folder(keys, monkeypatch):
    monkeypatch.setenv("STREAMTWL_CONFIG", str(keys.parent))
    assert keys_folder() == keys
    assert (
        ClientKeys.load(keys / "server.key").public
        == ClientKeys.load(keys / "server.key", keys / "client.key_secret").public
    )


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_secret_that_others_can_read_is_refused(mode, keys):
    for name, load in (
        ("server", lambda: ServerKeys.load(keys)),
        ("client", lambda: ClientKeys.load(keys / "server.key", keys / "client.key_secret")),
    ):
        secret = keys / f"{name}.key_secret"
        secret.chmod(mode)
        with pytest.raises(UsageError, match=f"{name}.key_secret: chmod 600"):
            load()


def test_an_existing_key_is_not_replaced(keys):
    before = (keys / "server.key_secret").read_bytes()
    with pytest.raises(UsageError, match="there is a key 'server'"):
        make_keys(keys, "server")
    assert (keys / "server.key_secret").read_bytes() == before


@pytest.mark.parametrize("name", ["../server", "a/b", "", ".", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="use letters"):
        make_keys(tmp_path, name)


@pytest.mark.parametrize(
    ("server_key", "key", "said"),
    [
        ("absent.key", "client.key_secret", "no key .*absent.key"),
        ("server.key", "absent.key_secret", "absent.key_secret.*keys new --client"),
        ("server.key", "client.key", "has no secret key"),
        ("noise.key", "client.key_secret", "cannot read the key .*noise.key"),
        ("server.key", "noise.key", "cannot read the key .*noise.key"),
    ],
)
def test_what_is_no_key_is_said(server_key, key, said, keys):
    (keys / "noise.key").write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match=said):
        ClientKeys.load(keys / server_key, keys / key)


def test_without_a_key_there_is_a_way_out(tmp_path):
    with pytest.raises(UsageError, match=r"server\.key_secret: `streamtwl keys new`"):
        ServerKeys.load(tmp_path)


def test_that_nobody_is_allowed_yet_is_said(keys, caplog):
    (keys / "clients" / "client.key").unlink()
    ServerKeys.load(keys)
    assert "no one may subscribe yet" in caplog.text


@pytest.mark.parametrize("option", ["--bind", "--replay-bind"])
def test_a_publisher_is_not_opened_to_the_network_without_a_word(option, keys, journal):
    binds = {"--bind": "tcp://127.0.0.1:*", "--replay-bind": "tcp://127.0.0.1:*"}
    binds[option] = "tcp://*:*"

    def publish(**how) -> Publisher:
        return Publisher(
            binds["--bind"], journal=journal, replay_bind=binds["--replay-bind"], **how
        )

    with pytest.raises(UsageError, match=rf"^{option} tcp://\*:\* is open to the network"):
        publish()
    for how in ({"insecure": True}, {"security": ServerKeys.load(keys)}):
        with contextlib.closing(publish(**how)) as one:
            assert "0.0.0.0" in (one.endpoint if option == "--bind" else one.replay)


# --- the command line ---


@pytest.fixture
def config(tmp_path) -> dict[str, str]:
    """Where the keys of these tests are: not in the user's own folder."""
    return {"STREAMTWL_CONFIG": str(tmp_path)}


def test_keys_are_made_and_used_as_the_help_says(cli, start_cli, config, tmp_path, wav):
    keys = tmp_path / "keys"
    for arguments, name in (((), "server"), (("--client", "kitchen"), "kitchen")):
        made = cli("keys", "new", *arguments, env=config)
        assert (made.returncode, made.stdout) == (0, f"{keys / name}.key\n")
    shutil.copy(keys / "kitchen.key", keys / "clients")
    endpoint = f"ipc://{tmp_path}/live"  # free for sure
    listening = start_cli(
        *("listen", "--stdin", "--quiet", "--curve", "--bind", endpoint, "--replay-bind", ""),
        env=os.environ | config,
    )
    listening.stdin.write(bytes(2 * 32_000))
    listening.stdin.flush()
    subscribing = start_cli(
        *("subscribe", "--connect", endpoint, "--kind", "label", "--json"),
        *("--server-key", keys / "server.key", "--key", keys / "kitchen.key_secret"),
        env=os.environ | config,
    )
    assert decode(subscribing.stdout.readline()).topic == "label/stdin/"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("listen", "--demo", "--bind", "tcp://*:5577"), "--bind tcp://*:5577 is open"),
        (("listen", "--demo", "--replay-bind", "tcp://0.0.0.0:1"), "--replay-bind tcp://0.0.0.0:1"),
        (("listen", "--demo", "--curve"), "`streamtwl keys new`"),
        (("listen", "--demo", "--keys", "nowhere"), "nowhere/server.key_secret"),
        (("subscribe", "--server-key", "server.key"), "`streamtwl keys new --client`"),
        (("keys", "new", "kitchen"), "--client"),
        (("keys", "new", "--client", "../kitchen"), "../kitchen"),
    ],
)
def test_what_is_not_safe_exits_with_two_and_one_line(arguments, said, cli, config, yamnet):
    ended = cli(*arguments, *(("--no-journal",) if "--curve" in arguments else ()), env=config)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
