"""Export, the emulated loader and the gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pidflow.config.models import FseNetwork
from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, write_json
from pidflow.model import ModelInfo, model_digest
from pidflow.physics import BY_PDG
from pidflow.publish import samples
from pidflow.publish.export import export_bundle
from pidflow.publish.gate import check_bundle
from pidflow.publish.names import COLUMNS_FILE, SCALING_FILE, model_file, p_limits
from pidflow.publish.o2 import O2PidInterface, O2PidModel, O2Tracks
from pidflow.tracks import o2_label
from pidflow.train import network

SPECIES = (211, -321)
FEATURES = ("tpc_signal", "trd_signal", "trd_pattern", "tof_signal", "beta", "p", "sign", "trd_chi2")
TOLERANCE = 1e-5


def make_model(folder: Path, features: tuple[str, ...] = FEATURES, species: tuple[int, ...] = SPECIES) -> Path:
    settings = FseNetwork(embedding_hidden=16, width=8, feed_forward=16, pooling_hidden=8, classifier_hidden=8)
    info = ModelInfo(
        kind="fse",
        run=5,
        species=species,
        features=features,
        masks={"tof": 0.5, "trd": 0.8},
        seed=1,
        settings={"network": settings.model_dump()},
    )
    torch.manual_seed(3)
    model = network.build(info)
    with torch.no_grad():
        model.encoder.mean.copy_(torch.linspace(-5, 80, len(features)))
        model.encoder.std.copy_(torch.linspace(0.5, 30, len(features)))
        for parameter in model.heads.parameters():
            parameter.mul_(4)
    folder.mkdir(parents=True, exist_ok=True)
    network.save(model, info, folder)
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    export_bundle(model_dir, folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def tracks_of(raw: np.ndarray, **changes: object) -> O2Tracks:
    columns = {o2_label(name): raw[:, index] for index, name in enumerate(FEATURES)}
    seen = np.ones(len(raw), bool)
    settings = {"p": raw[:, FEATURES.index("p")], "has_trd": seen, "has_tof": seen, **changes}
    return O2Tracks(columns, **settings)  # type: ignore[arg-type]


def torch_certainty(model_dir: Path, raw: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.sigmoid(network.load(model_dir)(torch.from_numpy(raw))).numpy()


def test_bundle_has_the_names_and_json_that_the_loader_reads(exported: Path) -> None:
    names = {
        "attention_model_211.onnx",
        "attention_model_0321.onnx",
        "columns_for_training.json",
        "scaling_params.json",
    }
    assert {path.name for path in exported.iterdir()} == names
    labels = [o2_label(name) for name in FEATURES]
    assert read_json(exported / COLUMNS_FILE) == {"columns_for_training": labels}
    scaling = read_json(exported / SCALING_FILE)
    assert scaling == {"columns": ["column", "mean", "std"], "data": [[label, 0.0, 1.0] for label in labels]}


def test_graph_is_small_self_contained_and_says_where_it_comes_from(model_dir: Path, exported: Path) -> None:
    graph = onnx.load(exported / model_file(211))
    assert (graph.ir_version, graph.opset_import[0].version) == (8, 17)
    metadata = {item.key: item.value for item in graph.metadata_props}
    assert metadata["run"] == "5" and metadata["pdg"] == "211" and metadata["model"] == model_digest(model_dir)
    assert json.loads(metadata["features"])[0] == "fTPCSignal"
    heads = [tensor.dims for tensor in graph.graph.initializer if tensor.name.startswith("heads.3")]
    assert sorted(list(shape) for shape in heads) == [[1], [1, 8]]


def test_export_gives_the_same_bytes_again(model_dir: Path, exported: Path, tmp_path: Path) -> None:
    for path in export_bundle(model_dir, tmp_path):
        assert sha256(path) == sha256(exported / path.name)


def test_only_networks_are_exported(tmp_path: Path) -> None:
    ModelInfo(kind="nsigma", run=1, species=(211,), features=("p",), masks={}, seed=0, settings={}).write(tmp_path)
    with pytest.raises(PidflowError, match="kind 'nsigma' cannot be exported"):
        export_bundle(tmp_path, tmp_path / "out")


def test_gate_passes_and_reports(bundle: Path, model_dir: Path) -> None:
    report = check_bundle(bundle, model_dir, TOLERANCE)
    assert report == read_json(bundle / "gate.json")
    assert 0 < report["worst_difference"] < TOLERANCE
    assert [record["pdg"] for record in report["species"]] == list(SPECIES)
    assert {"complete", "trd masked", "tof masked", "trd masked, tof masked", "no trd", "no tpc, no trd"} <= set(
        report["patterns"]
    )
    assert report["files"][model_file(211)] == sha256(bundle / model_file(211))


@pytest.mark.parametrize("features", [("p",), ("tpc_signal", "sign"), ("trd_signal", "beta", "tof_nsigma_pi")])
def test_gate_passes_for_few_features(features: tuple[str, ...], tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", features, (211,))
    export_bundle(model, tmp_path / "bundle")
    check_bundle(tmp_path / "bundle", model, TOLERANCE, rows=100)


def test_gate_tries_the_dataset(bundle: Path, model_dir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = {name: rng.normal(size=50).astype(np.float32) for name in FEATURES}
    table["beta"] = pa.array([None] * 50, pa.float32())
    table["sign"] = pa.array([1] * 50, pa.int8())
    pq.write_table(pa.table(table), tmp_path / "dataset.parquet")
    values = samples.from_dataset(tmp_path / "dataset.parquet", FEATURES, 20)
    assert values.shape == (20, len(FEATURES)) and values.dtype == np.float32
    assert np.isnan(values[:, FEATURES.index("beta")]).all()
    check_bundle(bundle, model_dir, TOLERANCE, dataset=tmp_path / "dataset.parquet", rows=50)
    pq.write_table(pa.table({"p": [1.0]}), tmp_path / "dataset.parquet")
    with pytest.raises(PidflowError, match="no column tpc_signal"):
        check_bundle(bundle, model_dir, TOLERANCE, dataset=tmp_path / "dataset.parquet")


def rewrite(bundle: Path, change: object) -> None:
    path = bundle / model_file(-321)
    graph = onnx.load(path)
    change(graph)  # type: ignore[operator]
    onnx.save(graph, path)


def node(graph: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(item for item in graph.graph.node if item.op_type == kind)


def without_scaling(graph: onnx.ModelProto) -> None:
    for tensor in graph.graph.initializer:
        if tensor.name in ("encoder.mean", "encoder.std"):
            value = np.full(tensor.dims, float(tensor.name == "encoder.std"), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def without_sigmoid(graph: onnx.ModelProto) -> None:
    node(graph, "Sigmoid").op_type = "Identity"


def without_mask(graph: onnx.ModelProto) -> None:
    select = node(graph, "Where")
    clamped = select.input[2]
    select.op_type = "Identity"
    del select.input[:]
    select.input.append(clamped)


def without_clamp(graph: onnx.ModelProto) -> None:
    clip = node(graph, "Clip")
    clip.op_type = "Identity"
    del clip.input[1:]


def swapped_inputs(graph: onnx.ModelProto) -> None:
    order = [1, 0, *range(2, len(FEATURES))]
    graph.graph.initializer.append(numpy_helper.from_array(np.array(order), "order"))
    for item in graph.graph.node:
        item.input[:] = ["swapped" if name == "features" else name for name in item.input]
    graph.graph.node.insert(0, helper.make_node("Gather", ["features", "order"], ["swapped"], axis=1))


def frozen_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def frozen_output(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def frozen_inside(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 1]), "one"))
    last = node(graph, "Sigmoid")
    graph.graph.node.append(helper.make_node("Reshape", ["whole", "one"], [last.output[0]]))
    last.output[0] = "whole"


def dynamic_columns(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "f"


def second_output(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Identity", [graph.graph.output[0].name], ["twice"]))
    graph.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", 1]))


def double_output(graph: onnx.ModelProto) -> None:
    last = node(graph, "Sigmoid")
    graph.graph.node.append(helper.make_node("Cast", ["single"], [last.output[0]], to=TensorProto.DOUBLE))
    last.output[0] = "single"
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def external_data(graph: onnx.ModelProto) -> None:
    tensor = graph.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    tensor.ClearField("raw_data")


def newer_opset(graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 18


def newer_ir(graph: onnx.ModelProto) -> None:
    graph.ir_version = 10


def broken_node(graph: onnx.ModelProto) -> None:
    node(graph, "Sigmoid").op_type = "Sigmund"


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (without_scaling, "differs from the network"),
        (without_sigmoid, r"leaves \[0, 1\]|must end with a sigmoid"),
        (without_mask, "not finite"),
        (without_clamp, "not finite|differs"),
        (swapped_inputs, "differs from the network"),
        (frozen_input, "frozen at 2 in its input"),
        (frozen_output, "frozen at 1 in its output"),
        (frozen_inside, "fails for|tracks give|checker refuses"),
        (dynamic_columns, r"input is not \[n, 8\]"),
        (second_output, "2 outputs instead of one"),
        (double_output, "output is not float32"),
        (external_data, "in another file"),
        (newer_opset, "beyond IR 9 and opset 17"),
        (newer_ir, "IR 10"),
        (broken_node, "checker refuses"),
    ],
)
def test_gate_stops_a_planted_defect(bundle: Path, model_dir: Path, defect: object, message: str) -> None:
    rewrite(bundle, defect)
    write_json(bundle / "gate.json", {})
    with pytest.raises(PidflowError, match=message) as caught:
        check_bundle(bundle, model_dir, TOLERANCE, rows=200)
    assert str(bundle / model_file(-321)) in str(caught.value)
    assert not (bundle / "gate.json").exists()


def test_gate_stops_wrong_json(bundle: Path, model_dir: Path) -> None:
    content = read_json(bundle / COLUMNS_FILE)
    labels = content["columns_for_training"]
    write_json(bundle / COLUMNS_FILE, {"columns_for_training": [labels[1], labels[0], *labels[2:]]})
    with pytest.raises(PidflowError, match=r"columns_for_training\.json: the columns"):
        check_bundle(bundle, model_dir, TOLERANCE)
    write_json(bundle / COLUMNS_FILE, content)
    scaling = read_json(bundle / SCALING_FILE)
    for rows in (scaling["data"][:-1], [[labels[0], 80.0, 30.0], *scaling["data"][1:]]):
        write_json(bundle / SCALING_FILE, {**scaling, "data": rows})
        with pytest.raises(PidflowError, match=r"scaling_params\.json: the scaling"):
            check_bundle(bundle, model_dir, TOLERANCE)


def test_gate_stops_missing_foreign_and_unreadable_files(bundle: Path, model_dir: Path) -> None:
    kept = (bundle / model_file(211)).read_bytes()
    (bundle / model_file(211)).write_bytes(b"no graph at all")
    with pytest.raises(PidflowError, match="no ONNX file"):
        check_bundle(bundle, model_dir, TOLERANCE)
    (bundle / model_file(211)).unlink()
    with pytest.raises(PidflowError, match=r"attention_model_211\.onnx: the file is missing"):
        check_bundle(bundle, model_dir, TOLERANCE)
    (bundle / model_file(211)).write_bytes(kept)
    (bundle / model_file(2212)).write_bytes(kept)
    with pytest.raises(PidflowError, match="no such species"):
        check_bundle(bundle, model_dir, TOLERANCE)


def test_gate_stops_a_feature_that_o2physics_cannot_deliver(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", ("p", "its_mean_cluster_size"), (211,))
    export_bundle(model, tmp_path / "bundle")
    with pytest.raises(PidflowError, match="its_mean_cluster_size"):
        check_bundle(tmp_path / "bundle", model, TOLERANCE)


def test_loader_masks_by_detector_and_momentum(exported: Path) -> None:
    raw = np.ones((6, len(FEATURES)), np.float32)
    p = np.array([0.3, 0.5, 0.79, 0.8, 3.0, 3.0], np.float32)
    has_trd, has_tof = np.array([1, 1, 1, 1, 0, 1], bool), np.array([1, 1, 1, 1, 1, 0], bool)
    missing = np.isnan(O2PidModel(exported, 211).inputs(tracks_of(raw, p=p, has_trd=has_trd, has_tof=has_tof)))
    for label, expected in (("trd_signal", [1, 1, 1, 0, 1, 0]), ("tof_signal", [1, 0, 0, 0, 0, 1])):
        assert missing[:, FEATURES.index(label)].tolist() == [bool(value) for value in expected]
    for first, second in (("trd_signal", "trd_pattern"), ("tof_signal", "beta")):
        assert (missing[:, FEATURES.index(first)] == missing[:, FEATURES.index(second)]).all()
    assert not missing[:, [FEATURES.index(name) for name in ("tpc_signal", "p", "sign", "trd_chi2")]].any()


def test_loader_scales_in_float32_and_leaves_unlisted_columns_raw(bundle: Path) -> None:
    rows = [["fTPCSignal", 80.1, 35.2], ["fP", 1, 2]]
    write_json(bundle / SCALING_FILE, {"data": rows})
    raw = np.full((1, len(FEATURES)), 3.3, np.float32)
    values = O2PidModel(bundle, 211).inputs(tracks_of(raw))[0]
    assert values[0] == (np.float32(3.3) - np.float32(80.1)) / np.float32(35.2)
    assert values[FEATURES.index("p")] == (np.float32(3.3) - 1) / np.float32(2)
    assert values[FEATURES.index("sign")] == np.float32(3.3)


def test_loader_agrees_with_torch_one_by_one_and_together(exported: Path, model_dir: Path) -> None:
    raw = samples.around(np.full(8, 5, np.float32), np.full(8, 4, np.float32), 40, 2)
    tracks = tracks_of(raw, has_trd=np.arange(40) % 2 == 0, has_tof=np.arange(40) % 3 == 0)
    model = O2PidModel(exported, -321, limits=p_limits({"tof": 0.5, "trd": 0.8}))
    expected = torch_certainty(model_dir, model.inputs(tracks))[:, 1]
    np.testing.assert_allclose(model.apply(tracks), expected, atol=1e-6)
    np.testing.assert_allclose(model.apply_batch(tracks), expected, atol=1e-6)
    assert model.failures == 0
    assert (model.accept(tracks) == (expected >= 0.5)).all()


def test_loader_answers_zero_when_inference_raises(bundle: Path) -> None:
    rewrite(bundle, frozen_input)
    model = O2PidModel(bundle, -321)
    tracks = tracks_of(np.ones((3, len(FEATURES)), np.float32))
    assert model.apply(tracks).tolist() == [0, 0, 0]
    assert model.failures == 3 and "dimension" in model.last_error
    with pytest.raises(PidflowError, match="does not take a batch"):
        model.apply_batch(tracks)


def test_loader_stops_where_o2physics_stops(bundle: Path) -> None:
    tracks = tracks_of(np.ones((1, len(FEATURES)), np.float32))
    model = O2PidModel(bundle, 211)
    with pytest.raises(PidflowError, match="no column fTRDPattern"):
        model.inputs(O2Tracks({k: v for k, v in tracks.columns.items() if k != "fTRDPattern"}, *[np.ones(1, bool)] * 3))
    with pytest.raises(PidflowError, match="cannot load"):
        O2PidModel(bundle, 2212)
    write_json(bundle / COLUMNS_FILE, {"columns_for_training": ["fP"]})
    with pytest.raises(PidflowError, match="cannot make a tensor"):
        O2PidModel(bundle, 211).apply(tracks)
    for name, text in (
        (COLUMNS_FILE, "{"),
        (COLUMNS_FILE, '{"columns_for_training": [1]}'),
        (SCALING_FILE, '{"data": [["fP", NaN, 1]]}'),
        (SCALING_FILE, '{"data": [["fP", 1]]}'),
        (SCALING_FILE, "[]"),
    ):
        kept = (bundle / name).read_text()
        (bundle / name).write_text(text)
        with pytest.raises(PidflowError, match=name):
            O2PidModel(bundle, 211)
        (bundle / name).write_text(kept)
    rewrite(bundle, second_output)
    with pytest.raises(PidflowError, match="2 outputs"):
        O2PidModel(bundle, -321)


def test_loader_survives_missing_json_files_as_o2physics_does(bundle: Path) -> None:
    (bundle / SCALING_FILE).unlink()
    assert O2PidModel(bundle, 211).scaling == {}
    (bundle / COLUMNS_FILE).unlink()
    assert O2PidModel(bundle, 211).columns == ()


def test_loader_cuts_a_longer_buffer_without_a_word(bundle: Path) -> None:
    tracks = tracks_of(np.ones((1, len(FEATURES)), np.float32))
    before = O2PidModel(bundle, 211).apply(tracks)
    labels = read_json(bundle / COLUMNS_FILE)["columns_for_training"]
    write_json(bundle / COLUMNS_FILE, {"columns_for_training": [*labels, "fP"]})
    assert O2PidModel(bundle, 211).apply(tracks) == before


def test_interface_knows_its_species(exported: Path) -> None:
    tracks = tracks_of(np.ones((2, len(FEATURES)), np.float32))
    interface = O2PidInterface([O2PidModel(exported, pdg) for pdg in SPECIES])
    assert interface.apply(tracks, 2212).tolist() == [-1, -1]
    assert interface.apply(tracks, 211).tolist() == O2PidModel(exported, 211).apply(tracks).tolist()
    with pytest.raises(PidflowError, match="none twice"):
        O2PidInterface([O2PidModel(exported, 211)] * 2)


def test_every_species_has_a_file_name() -> None:
    assert {model_file(sign * pdg) for pdg in BY_PDG for sign in (1, -1)} >= {"attention_model_02212.onnx"}
