"""Configuration, its pages, shipped files and code: each key is in all of them."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
import yaml
from checkout import ROOT
from config_sample import HEADER, merged
from pydantic import BaseModel

from pidflow import models
from pidflow.adapt import steps as adaptation
from pidflow.config import validate
from pidflow.config.document import PAGE, SCHEMA, page_text, schema_text
from pidflow.config.models import Config


@pytest.mark.parametrize(("path", "text"), [(SCHEMA, schema_text), (PAGE, page_text)], ids=["schema", "page"])
def test_generated_documents_are_in_step_with_the_code(path, text):
    assert (ROOT / path).read_text(encoding="utf-8") == text(), f"{path} is out of date; run: make docs"


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path):
    given, default = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (path, ROOT / "config/config.yaml"))
    config = validate(merged(default, given), path.name).model_dump(mode="json")

    def check(part: dict[str, Any], whole: dict[str, Any]) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                check(value, whole[key])
            else:
                assert whole[key] == value

    check(given, config)


def test_examples_are_found():
    assert (ROOT / "config/config.yaml").is_file()
    assert list(ROOT.glob("config/examples/*.yaml"))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        # a block, or a block or null
        annotations = (
            field.annotation,
            *(get_args(field.annotation) if get_origin(field.annotation) is UnionType else ()),
        )
        blocks = [block for block in annotations if isinstance(block, type) and issubclass(block, BaseModel)]
        for block in blocks:
            yield from leaves(block, f"{prefix}{name}.")
        if not blocks:
            yield prefix + name


def keys_of_kinds(found: Any = models) -> Iterator[tuple[str, str]]:
    """Yield each kind of model, or of step, with each key of its entries."""
    for kind in found.kinds():
        yield from ((kind, key) for key in leaves(found.settings_of(kind)) if key.rsplit(".", 1)[-1] != "kind")


def test_every_key_is_read_somewhere():
    code = [ROOT / "Snakefile", *ROOT.glob("rules/*.smk"), *ROOT.glob("workflow/scripts/**/*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in code if path.name != "models.py")
    keys = [*leaves(Config), *(key for found in (models, adaptation) for _, key in keys_of_kinds(found))]
    # sizes of networks are handed on as a whole
    sizes = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("workflow/scripts/pidflow/networks/*.py"))
    keys = [key for key in keys if not re.search(rf"\b{key.rsplit('.', 1)[-1]}: ", sizes)]
    unused = [key for key in keys if not re.search(rf"[.<\"]{re.escape(key.rsplit('.', 1)[-1])}(\b|>)", text)]
    assert not unused


def test_every_key_of_the_default_file_is_a_key_of_the_configuration():
    def paths(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    given = list(paths(yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))))
    assert given
    known = {*leaves(Config), *(f"{kind}:{key}" for kind, key in keys_of_kinds())}
    entries = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))["models"]
    for key in given:
        block, name, *rest = [*key.split("."), ""]
        if block == "models" and rest != ["kind", ""]:
            key = f"{entries[name].get('kind', name)}:{'.'.join(rest[:-1])}"
        # names of candidates are free
        key = re.sub(r"^adapt\.candidates\.\w+$", "adapt.candidates", key)
        assert key in known or rest == ["kind", ""], key


def test_page_lists_every_key():
    page = page_text()
    missing = [key for key in leaves(Config) if f"| `{key}` |" not in page]
    assert not missing
    for found in (models, adaptation):
        parts = {kind: page.partition(f"\n### {kind}\n")[2].partition("\n#")[0] for kind in found.kinds()}
        assert all(parts.values())
        assert [pair for pair in keys_of_kinds(found) if f"| `{pair[1]}` |" not in parts[pair[0]]] == []
    assert [name for name in HEADER if f"| `{name}` |" not in page] == []
