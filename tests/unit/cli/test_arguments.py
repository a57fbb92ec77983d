"""What `cosi` refuses on its command line, and what it then says is allowed."""

import pytest

from cosi_operator.cli.arguments import parse
from cosi_operator.outcome import Call, Code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["retry", "pod/x"], "'pod/x': write NAME for a bucketclaim, or KIND/NAME", id="kind"
        ),
        pytest.param(["retry", "bucketaccess/"], "'bucketaccess/': write NAME", id="no name"),
        pytest.param(
            ["status", "-n", "../x"], "'../x' is not a name of a namespace", id="namespace"
        ),
        pytest.param(
            ["status", "-n", "a" * 70_000],
            f"argument -n/--namespace: '{'a' * 255}…' is not a name of a namespace",
            id="namespace too long",
        ),
        pytest.param(["-n", "a?b", "status"], "'a?b' is not a name of a namespace", id="first"),
        pytest.param(
            ["policy", "explain", "--call", "Create", "--code", "UNKNOWN"],
            "'Create' is not a call; allowed: DriverCreateBucket, ",
            id="call",
        ),
        pytest.param(
            ["policy", "explain", "--call", "DriverCreateBucket", "--code", "OK"],
            "'OK' is not a code of a failure; allowed: CANCELLED, ",
            id="code",
        ),
        *(
            pytest.param(
                ["driver", "check", "--driver-addr", "unix:///x", "--timeout", text],
                f"'{text}': write seconds, above 0",
                id=f"{text} seconds",
            )
            for text in ("soon", "0", "nan", "inf")
        ),
    ],
)
def test_a_bad_word_ends_with_2_and_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words, "cosi")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_calls_and_codes_are_read_in_any_case() -> None:
    words = ["policy", "explain", "--call", "drivercreatebucket", "--code", "invalid-argument"]
    parsed = parse(words, "cosi")
    assert (parsed.call, parsed.code) == (Call.CREATE_BUCKET, Code.INVALID_ARGUMENT)
