"""The metadata, the make verbs and the set-up's logic; no network, no host."""

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20

# What the host's own requirements.txt brings (0.30.0); asking for it again may replace a CUDA build.
HOST_HAS = {
    *("torch", "torchvision", "torchaudio", "torchsde", "numpy", "einops", "transformers", "tokenizers"),
    *("sentencepiece", "safetensors", "aiohttp", "yarl", "pyyaml", "pillow", "scipy", "tqdm", "psutil"),
    *("av", "kornia", "spandrel", "pydantic", "requests", "filelock", "sqlalchemy", "alembic"),
}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def setup(monkeypatch):
    spec = importlib.util.spec_from_file_location("lumiere_setup", ROOT / ".ci" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lumiere_setup", module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def tracked_files():
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [file for file in files if file.is_file()]


# Metadata


def test_registry_metadata(project):
    about, comfy = project["project"], project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,98}", about["name"])
    assert "comfyui" not in about["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert (ROOT / about["license"]["file"]).read_text().lstrip().startswith("GNU GENERAL PUBLIC")
    assert comfy["requires-comfyui"].startswith(">=")
    assert "web" not in comfy, "WEB_DIRECTORY serves js/ already: with both, every script loads twice"


def test_requirements_hold_only_what_the_host_lacks(project):
    names = {re.split(r"[<>=~!\[; ]", line)[0].lower() for line in requirements()}
    assert not names & HOST_HAS
    assert not [line for line in requirements() if "==" in line]
    assert sorted(requirements()) == sorted(project["project"]["dependencies"])


def test_names_of_files_are_plain():
    """comfy-cli reads `git ls-files`, which quotes other names, and leaves what it does not find out of the registry's zip."""
    assert [str(file.relative_to(ROOT)) for file in tracked_files() if not str(file.relative_to(ROOT)).isascii()] == []


# Commands


def test_makefile_has_the_verbs_and_each_sets_up_first():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^([a-z-]+):([^#\n]*)", text, re.MULTILINE))
    verbs = {"demo", "test", "test-core", "bench", "evaluate", "train", "lint"}
    assert verbs | {"test-browser", "clean", "help"} <= set(rules)
    assert all("setup" in rules[verb] for verb in verbs)


def test_ci_calls_make_test():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text()
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_no_paths_of_one_machine_in_tracked_files():
    folders = ("home/", "root/", "Users/", "work/", "mnt/")
    elsewhere = "|".join([rf"(?<![\w.~$}})/])/{name}[a-z]" for name in folders])
    temporary = r"(?<![a-zA-Z])/t" + "mp/"
    pattern = re.compile(f"{elsewhere}|{temporary}")
    found = []
    for file in tracked_files():
        data = file.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_tracked_weights_stay_small():
    weights = [file for file in tracked_files() if file.suffix == ".safetensors"]
    sizes = {file.name: file.stat().st_size for file in weights}
    assert all(size <= 15 * MIB for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 56 * MIB, sizes


# The set-up


def make_step(setup, folder, key="1", make=None):
    product = folder / "product"
    return setup.Step(
        title="a step",
        stamp=folder / "stamps" / "step",
        key=key,
        product=product,
        make=make or (lambda: product.write_text("made")),
    )


def test_a_finished_step_is_not_repeated(setup, tmp_path):
    assert setup.run_steps([make_step(setup, tmp_path)]) == 1
    assert setup.run_steps([make_step(setup, tmp_path)]) == 0


def test_an_interrupted_step_is_repeated_and_the_ones_before_it_are_not(setup, tmp_path):
    first = make_step(setup, tmp_path / "first", make=lambda: (tmp_path / "first").mkdir())
    product = tmp_path / "second" / "product"

    def interrupted():
        product.parent.mkdir(exist_ok=True)
        product.write_text("half")
        raise KeyboardInterrupt

    first = setup.Step(**{**first.__dict__, "product": tmp_path / "first"})
    with pytest.raises(KeyboardInterrupt):
        setup.run_steps([first, make_step(setup, tmp_path / "second", make=interrupted)])
    assert first.is_done()
    again = make_step(setup, tmp_path / "second")
    assert not again.is_done()
    assert setup.run_steps([first, again]) == 1
    assert product.read_text() == "made"


def test_another_key_or_a_missing_product_repeats_a_step(setup, tmp_path):
    setup.run_steps([make_step(setup, tmp_path)])
    assert not make_step(setup, tmp_path, key="2").is_done()
    (tmp_path / "product").unlink()
    assert not make_step(setup, tmp_path).is_done()


def test_a_failure_after_success_leaves_no_stamp(setup, tmp_path):
    setup.run_steps([make_step(setup, tmp_path)])

    def fails():
        raise setup.SetupError("no network")

    with pytest.raises(setup.SetupError):
        setup.run_steps([make_step(setup, tmp_path, key="2", make=fails)])
    assert not make_step(setup, tmp_path).is_done()


def make_archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))


def test_a_wrong_archive_is_refused_with_both_sums_and_removed(setup, tmp_path):
    archive = tmp_path / "host.tar.gz"
    archive.write_bytes(b"not the host")
    got = hashlib.sha256(b"not the host").hexdigest()
    with pytest.raises(setup.SetupError, match=f"{got}.*{setup.HOST_SHA256}.*COMFYUI_PATH"):
        setup.check_archive(archive)
    assert not archive.exists()


def test_the_right_archive_is_accepted(setup, tmp_path):
    archive = tmp_path / "host.tar.gz"
    archive.write_bytes(b"the host")
    setup.check_archive(archive, hashlib.sha256(b"the host").hexdigest())
    assert archive.exists()


def test_only_the_host_s_folder_is_unpacked(setup, tmp_path):
    archive, target = tmp_path / "a.tar.gz", tmp_path / "ComfyUI"
    make_archive(archive, ["p/vendor/ComfyUI/main.py", "p/vendor/ComfyUI/comfy/sd.py", "p/other.py"])
    setup.extract_host(archive, target, "p/vendor/ComfyUI")
    files = sorted(str(f.relative_to(target)) for f in target.rglob("*") if f.is_file())
    assert files == [os.path.join("comfy", "sd.py"), "main.py"]
    assert (target / "custom_nodes").is_dir()
    assert not (tmp_path / "ComfyUI.partial").exists()


@pytest.mark.parametrize("names", [["p/h/main.py", "p/h/../../evil.py"], ["p/h/readme.txt"]])
def test_a_bad_archive_leaves_no_host(setup, tmp_path, names):
    archive, target = tmp_path / "a.tar.gz", tmp_path / "ComfyUI"
    make_archive(archive, names)
    with pytest.raises(setup.SetupError):
        setup.extract_host(archive, target, "p/h")
    assert not target.exists()
    assert not (tmp_path / "evil.py").exists()


def test_a_given_host_is_not_downloaded_and_its_requirements_key_is_its_own(setup, tmp_path, monkeypatch):
    host = tmp_path / "mine"
    (host / "comfy").mkdir(parents=True)
    (host / "main.py").touch()
    (host / "requirements.txt").write_text("torch\n")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    keys = {step.stamp.name: step.key for step in setup.plan()}
    assert "host.stamp" not in keys
    assert keys["requirements"] == hashlib.sha256(b"torch\n").hexdigest()
    monkeypatch.delenv("COMFYUI_PATH")
    assert {"host.stamp", "base.stamp", "torch"} <= {step.stamp.name for step in setup.plan()}


def test_a_wrong_comfyui_path_is_named(setup, tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nothing"))
    with pytest.raises(setup.SetupError, match="nothing.*COMFYUI_PATH"):
        setup.plan()


def test_without_venv_and_pip_the_missing_package_is_named(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup.SetupError, match=r"apt install python3\.\d+-venv"):
        setup.make_venv()
