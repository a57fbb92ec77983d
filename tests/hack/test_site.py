"""The documentation builds as a site, with no page forgotten and no link that leads nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from site_hook import commands_of, on_page_content

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        pytest.param("$ make demo\n", "make demo", id="prompt -> removed"),
        pytest.param("$ a\nsome output\n$ b", "a\nb", id="output -> left out"),
        pytest.param(
            "$ a \\\n    --flag\nout", "a \\\n    --flag", id="backslash -> next line too"
        ),
        pytest.param(
            "$ kubectl apply -f - <<END\nkind: X\n\nEND\napplied\n$ b",
            "kubectl apply -f - <<END\nkind: X\n\nEND\nb",
            id="heredoc -> its text, and no output after it",
        ),
        pytest.param(">>> x = 1\n>>> x\n1\n", "x = 1\nx", id="Python session -> its input"),
        pytest.param("kind: Bucket\n", "", id="no prompt -> nothing, so all of it is copied"),
    ],
)
def test_the_commands_of_a_block(text: str, commands: str) -> None:
    assert commands_of(text) == commands


def test_a_block_gets_the_text_to_copy() -> None:
    code = '<code><span class="gp">$ </span>a &lt;b&gt;\n<span class="go">out</span>\n</code>'
    html = f'<p>x</p><div class="highlight"><pre><span></span>{code}</pre></div>'
    found = on_page_content(html)
    assert found == html.replace(
        '<div class="highlight">', '<div class="highlight" data-copy="a &lt;b&gt;">'
    )
    plain = html.replace("$ ", "")
    assert on_page_content(plain) == plain
