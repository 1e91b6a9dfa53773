"""What was generated is what proto/ says, and what is installed is what is in the repository."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import palisade

PACKAGE = Path(__file__).parents[2]
PROTO = PACKAGE.parents[1] / "proto"


@pytest.mark.parametrize("stub", sorted((PACKAGE / "src/palisade/v1").glob("*_pb2.py")), ids=lambda stub: stub.stem)
def test_stubs_are_up_to_date(stub: Path, tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    name = f"palisade/v1/{stub.stem.removesuffix('_pb2')}.proto"
    out = tmp_path / "set"
    assert protoc.main(["protoc", f"-I{PROTO}", f"--descriptor_set_out={out}", str(PROTO / name)]) == 0
    (wanted,) = FileDescriptorSet.FromString(out.read_bytes()).file
    module = importlib.import_module(f"palisade.v1.{stub.stem}")
    given = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    # Not carried by what protoc generates.
    for message in (wanted, given):
        _without_json_names(message)
    assert given == wanted, "run deploy/python/generate"


def _without_json_names(file: FileDescriptorProto) -> None:
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        for one in message.field:
            one.ClearField("json_name")


def test_the_installed_package_is_this_one() -> None:
    installed = Path(palisade.__file__).parent
    source = PACKAGE / "src/palisade"
    wanted = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if _is_ours(path)}
    given = {path.relative_to(installed): path.read_bytes() for path in installed.rglob("*") if _is_ours(path)}
    assert Path("py.typed") in given
    assert given.keys() == wanted.keys(), "run tests/python-env"
    assert [str(path) for path in wanted if given[path] != wanted[path]] == [], "run tests/python-env"


def _is_ours(path: Path) -> bool:
    return path.suffix in (".py", ".pyi", ".typed") or path.name == "py.typed"
