"""Weights from a hub: a mirror on this machine, and a cache as the hub's library lays it out."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants, file_download

from ftp_cl.models import pretrained
from ftp_cl.models.hub import hub_weights

COMMIT, OLDER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
NAME = "test_vit.r160_in1k"
GATED, MISSING, PICKLED = "test_vit2.r160_in1k", "test_vit3.r160_in1k", "test_resnet.r160_in1k"
BROKEN, DENIED, CUT = "test_convnext.r160_in1k", "test_efficientnet.r160_in1k", "test_byobnet.r160_in1k"


def whole(seed=0):
    torch.manual_seed(seed)
    return timm.create_model(NAME, pretrained=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mirror(cache, monkeypatch):
    """A hub on this machine, with two revisions of one model, a gated repository and one without safetensors."""
    files = {
        ("main", "model.safetensors"): (COMMIT, safetensors.torch.save(whole().state_dict())),
        ("v1", "model.safetensors"): (OLDER, safetensors.torch.save(whole(seed=1).state_dict())),
    }
    asked = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            if "/resolve/" not in self.path:  # the library asks for other things, too
                return self.refuse(404, "EntryNotFound")
            asked.append(self.path)
            *_, repository, _, revision, file = self.path.split("/")
            refusals = {GATED: (403, "GatedRepo"), MISSING: (404, "RepoNotFound"), PICKLED: (404, "EntryNotFound")}
            refusals |= {BROKEN: (500, ""), DENIED: (401, "")}
            if repository in refusals:
                return self.refuse(*refusals[repository])
            revision = {COMMIT: "main", OLDER: "v1"}.get(revision, revision)
            if (revision, file) not in files:
                return self.refuse(404, "RevisionNotFound")
            commit, content = files[revision, file]
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hash(content)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def do_GET(self):
            if content := self.do_HEAD():
                if CUT in self.path:
                    self.close_connection = True
                else:
                    self.wfile.write(content)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield asked
    server.shutdown()
    server.server_close()


def assert_holds(model, expected):
    state = expected.state_dict()
    assert len(model.backbone.state_dict()) == len(state) - 2  # without the classifier
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_model_of_timm_gets_its_weights_from_the_hub(mirror, cache):
    model = pretrained(NAME)
    assert_holds(model, whole())
    assert model(torch.rand(1, 3, 160, 160)).shape == (1, 2)
    assert hub_weights(NAME) == (
        cache / "models--timm--test_vit.r160_in1k" / "snapshots" / COMMIT / "model.safetensors",
        COMMIT,
    )
    assert all(path.endswith(".safetensors") for path in mirror)


def test_a_revision_of_the_hub_can_be_named(mirror):
    assert_holds(pretrained(NAME, revision="v1"), whole(seed=1))
    assert hub_weights(NAME, "v1")[1] == OLDER
    with pytest.raises(FileNotFoundError, match=r"timm/test_vit\.r160_in1k has no revision 'v2'"):
        pretrained(NAME, revision="v2")


def test_what_the_cache_has_needs_no_network(mirror, cache, monkeypatch):
    pretrained(NAME)
    asked = len(mirror)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_holds(pretrained(NAME), whole())
    assert_holds(pretrained(NAME, revision=COMMIT), whole())
    assert len(mirror) == asked


def test_without_a_network_the_file_the_cache_and_the_way_out_are_named(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError) as error:
        pretrained(NAME)
    message = str(error.value)
    assert "model.safetensors of timm/test_vit.r160_in1k" in message
    assert str(cache / "models--timm--test_vit.r160_in1k") in message
    assert "HF_HUB_OFFLINE is set" in message and "model.weights=path" in message and "\n" not in message


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (GATED, PermissionError, f"timm/{GATED} is gated: accept its terms at http"),
        (MISSING, FileNotFoundError, f"there is no repository timm/{MISSING} at http"),
        (PICKLED, FileNotFoundError, f"timm/{PICKLED} has no model.safetensors, and other files are not loaded"),
        (BROKEN, FileNotFoundError, f"model.safetensors of timm/{BROKEN} is not in the cache .* with status 500: down"),
        (DENIED, FileNotFoundError, r"answered with status 401 \(is HF_TOKEN right\?\)"),
        (CUT, FileNotFoundError, r"gave no whole answer \(RemoteProtocolError\)"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_sentence(mirror, monkeypatch, name, error, message):
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)  # between attempts
    with pytest.raises(error, match=message) as raised:
        pretrained(name)
    assert "\n" not in str(raised.value)


def test_a_damaged_file_of_the_cache_is_refused(mirror):
    path, _ = hub_weights(NAME)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        pretrained(NAME)


def test_a_file_of_another_layout_is_refused_whole(mirror):
    path, _ = hub_weights(NAME)
    tensors = safetensors.torch.load_file(path)
    del tensors["norm.weight"]
    safetensors.torch.save_file(tensors, path.resolve())
    with pytest.raises(ValueError, match=r"timm cannot build test_vit.*norm\.weight") as error:
        pretrained(NAME)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit.r160_in2k", r"no weights 'test_vit.r160_in2k'; did you mean test_vit.r160_in1k\?"),
        ("vit_base_patch16_clip_224.opena", "did you mean vit_base_patch16_clip_224.openai"),
        ("vit_base_path16_224", "did you mean .*vit_base_patch16_224"),
    ],
)
def test_a_typing_error_brings_the_nearest_names(name, message):
    with pytest.raises(ValueError, match=message):
        pretrained(name)


def test_a_model_that_is_not_on_the_hub_is_refused():
    absent = next(name for name in timm.list_models() if not timm.get_pretrained_cfg(name).hf_hub_id)
    with pytest.raises(ValueError, match=f"timm knows no weights of {absent} on the Hugging Face hub: name a local"):
        pretrained(absent)


def test_a_revision_without_the_hub_is_refused():
    with pytest.raises(ValueError, match="revision='v1' is one of the hub's"):
        pretrained(NAME, weights="random", revision="v1")


def test_a_cache_that_was_copied_from_elsewhere_is_read(cache, monkeypatch):
    folder = cache / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "config.json").write_text(json.dumps({}))
    safetensors.torch.save_file(whole().state_dict(), folder / "snapshots" / COMMIT / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_holds(pretrained(NAME), whole())
