from __future__ import annotations

from pathlib import Path

import pytest

from server.access import token_secret
from server.access.token_file import TokenFile
from server.caller import Right
from server.operations import token

GIVEN = (
    "add mill --may predict,observe --models weather*,tide --open 5 --parked 6 --steps-per-second 7.5 --message-mib 2"
)


class Command:
    """`python -m server token` over a file, and what it prints."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = TokenFile(path)
        self._capsys = capsys

    def __call__(self, line: str, status: int = 0) -> tuple[str, str]:
        assert token.main(line.split(), {"TIDEGATE_TOKENS": str(self.file.path)}) == status
        return self._capsys.readouterr()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "tokens.json", capsys)


def test_a_secret_is_shown_once_and_alone_on_standard_output(run: Command) -> None:
    out, told = run(GIVEN)
    (made,) = out.splitlines()
    assert token_secret.well_formed(made)
    assert made not in told + run("list")[0] + run.file.path.read_text()
    kept = run.file.read()["mill"]
    assert kept.digests == (token_secret.digest(made),)
    assert (kept.rights, kept.models) == ({Right.PREDICT, Right.OBSERVE}, ("weather*", "tide"))
    assert (kept.limits.open, kept.limits.parked, kept.limits.steps_per_second) == (5, 6, 7.5)
    assert kept.limits.message_bytes == 2 * 2**20


def test_a_list_says_what_each_token_may_and_until_when(run: Command) -> None:
    run(f"{GIVEN} --expires 2100-01-31 --weight 2")
    run("add --certificate edge-1 edge")
    listed = run("list")[0]
    assert listed.splitlines() == [
        "edge  predict  models *  certificate edge-1",
        (
            "mill  observe,predict  models weather*,tide  expires 2100-01-31T00:00:00Z  5 open  6 parked  "
            "7.5 steps a second  2 MiB a message  weight 2"
        ),
    ]


def test_of_a_renewed_token_the_secret_before_goes_on_until_it_is_dropped(run: Command) -> None:
    made = [run(line)[0].strip() for line in (GIVEN, "renew mill", "renew mill")]
    assert run.file.read()["mill"].digests == (token_secret.digest(made[2]), token_secret.digest(made[1]))
    newest = run("renew mill --drop-old")[0].strip()
    assert run.file.read()["mill"].digests == (token_secret.digest(newest),)


def test_what_cannot_be_is_said_in_a_sentence(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert "makes it" in run("list", 1)[1]
    run(GIVEN)
    assert "there is a token 'mill'" in run(GIVEN, 1)[1]
    assert "there is no token 'mall'; there is mill" in run("remove mall", 1)[1]
    assert "there is no token 'mall'" in run("renew mall", 1)[1]
    assert "'dance'" in run("add x --may dance", 1)[1]
    assert "--expires is 'soon'; expected a date" in run("add x --expires soon", 1)[1]
    for given, expected in (
        ("--open -1", "a whole"),
        ("--parked 1.5", "a whole"),
        ("--weight nan", "a"),
        ("--message-mib x", "a"),
    ):
        with pytest.raises(SystemExit):
            run(f"add x {given}")
        assert f"expected {expected} number, 0 or more" in capsys.readouterr().err
    run("remove mill")
    assert run.file.read() == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"--open 1{'0' * 30}", "expected a whole number from 0 to"),
        ("--message-mib 1e300", "expected a whole number from 0 to"),
        ("--steps-per-second 1e300", "expected a number from 0 to"),
        ("--expires nand", "expected a date"),
        ("--expires infd", "expected a date"),
        ("--expires 1e30d", "expected a date"),
        ("--models weather@stable", "expected names of models without @"),
    ],
)
def test_a_limit_or_an_end_that_the_file_cannot_have_changes_nothing(run: Command, given: str, expected: str) -> None:
    run(GIVEN)
    before = run.file.read()
    assert expected in run(f"add other {given}", 1)[1]
    assert run.file.read() == before


def test_what_a_certificate_stands_for_gets_no_secret_by_renewing_it(run: Command) -> None:
    run("add edge --certificate edge-1")
    assert "certificate 'edge-1' stands for it" in run("renew edge", 1)[1]
    assert run.file.read()["edge"].digests == ()


def test_which_file_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert token.main(["list"], {}) == 1
    assert "Say --tokens FILE, or set TIDEGATE_TOKENS" in capsys.readouterr().err


def test_a_right_that_there_is_not_and_a_folder_that_is_not_there_are_named(run: Command, tmp_path: Path) -> None:
    assert "no right 'dance'; expected predict, observe, administer" in run("add mill --may dance", status=1)[1]
    run.file.path = tmp_path / "nowhere" / "tokens.json"
    assert f"there is no folder {tmp_path / 'nowhere'}" in run("add mill", status=1)[1]
    run.file.path = Path("/proc/tokens.json")
    assert "/proc/tokens.json cannot be changed: /proc/.tokens.json.lock: No such file" in run("add mill", status=1)[1]
