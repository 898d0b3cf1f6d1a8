"""A manifest is trusted only beside the very engine that it is about."""

import hashlib
import json

import pytest

from onnxq.engines import describe
from onnxq.engines.manifest import digest
from onnxq.errors import EngineError


def test_digest_over_several_files(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(file.name.encode() * 3_000_000)
    found = digest(files)
    assert found["bytes"] == 6_000_000
    assert found["sha256"] == hashlib.sha256(b"a" * 3_000_000 + b"b" * 3_000_000).hexdigest()


@pytest.fixture
def engine(tmp_path):
    file = tmp_path / "m.engine"
    file.write_bytes(b"plan")
    (tmp_path / "m.engine.json").write_text(json.dumps({"engine": digest([file])}))
    return file


def test_describe(engine):
    assert describe(engine)["engine"]["bytes"] == 4


def test_another_engine_under_the_name(engine):
    engine.write_bytes(b"plam")
    with pytest.raises(EngineError, match=r"is not the engine that .* is about"):
        describe(engine)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"engine": {}}'])
def test_unreadable_manifest(engine, manifest):
    engine.with_name("m.engine.json").write_text(manifest)
    with pytest.raises(EngineError, match=r"no readable manifest .* Build it with `onnxq build`"):
        describe(engine)


def test_missing_files(engine, tmp_path):
    engine.with_name("m.engine.json").unlink()
    with pytest.raises(EngineError, match="no readable manifest"):
        describe(engine)
    with pytest.raises(EngineError, match="There is no file"):
        describe(tmp_path / "none")
