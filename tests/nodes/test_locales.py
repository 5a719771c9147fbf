"""Every language has every text of the nodes, settings and widgets, with the same placeholders; help pages too."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
LOCALES = ROOT / "locales"
LANGUAGES = ("ja", "zh", "ko")
HELP = ("ja", "zh")
FILES = ("nodeDefs", "main", "settings")


def read(language, name):
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def flat(texts, path=""):
    """{path: text} of nested texts."""
    found = {}
    for key, value in texts.items():
        found |= flat(value, f"{path}/{key}") if isinstance(value, dict) else {f"{path}/{key}": value}
    return found


def placeholders(text):
    return sorted(re.findall(r"\{[^}]*\}|%\w|\([a-z]+:[\d.]+\)", text))


def test_english_is_what_the_schemas_say(host, script):
    """`make locales` writes it anew."""
    assert read("en", "nodeDefs") == script("locales").our_texts(host)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_key_is_there_and_no_text_is_empty(language, name):
    english, other = flat(read("en", name)), flat(read(language, name))
    assert sorted(english.keys() - other.keys()) == [] and sorted(other.keys() - english.keys()) == []
    for path, text in other.items():
        assert text.strip(), path
        assert placeholders(text) == placeholders(english[path]), path
        assert not re.search(r"[{}|@]", text), f"{path}: the page's translator would read this as its own syntax"


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_translated(language):
    english, other = flat(read("en", "nodeDefs")), flat(read(language, "nodeDefs"))
    same = [path for path, text in english.items() if " " in text.strip() and other[path] == text]
    assert [path for path in same if not english[path].startswith("Inception")] == []


QUOTED = {"ja": r"「([^」]+)」", "zh": r"“([^”]+)”", "ko": r'"([^"]+)"'}


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_nodes_are_called_by_their_names(language):
    """A reader looks for what stands between quotes; a node that was renamed leaves no older name behind."""
    names = {entry["display_name"] for entry in read(language, "nodeDefs").values()}
    names |= {path.stem for path in (ROOT / "workflows").glob("*.json")} | {"Lumiere"}
    texts = {f"{name}{path}": text for name in FILES for path, text in flat(read(language, name)).items()}
    for page in (ROOT / "js" / "docs").glob(f"*/{language}.md"):
        texts[f"{page.parent.name}.md"] = page.read_text(encoding="utf-8")
    for place, text in texts.items():
        for quoted in re.findall(QUOTED[language], text):
            assert "Lumiere" not in quoted or quoted in names, f"{place}: {quoted}"


@pytest.mark.parametrize("language", HELP)
def test_every_node_has_a_help_page_in_the_language(host, language):
    for node_id in read("en", "nodeDefs"):
        english = (ROOT / "js" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        page = (ROOT / "js" / "docs" / node_id / f"{language}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"^\| (`[^|]*`) \|", english, re.MULTILINE))
        for cell in named:
            for code in re.findall(r"`[^`]+`", cell):
                assert code in page, f"{node_id}/{language}.md does not mention {code}"
        assert page.startswith("# ") and re.search("[\u3040-\u30ff\u4e00-\u9fff]", page)


def test_the_page_serves_them(host):
    from app.custom_node_manager import CustomNodeManager

    merged = CustomNodeManager().build_translations()
    for language in ("en", *LANGUAGES):
        assert merged[language]["nodeDefs"]["LumiereSampler"]["display_name"]
        assert merged[language]["lumiere"]["play"] and "Lumiere_Preview_WhileSampling" in merged[language]["settings"]


def test_the_script_s_texts_of_a_dynamic_choice_are_joined(script):
    joined = script("locales")._both
    assert joined("A.", "B.") == "A. / B." and joined("A.", "A.") == "A." and joined(None, "B.") == "B."
