"""Export, the emulated loader and the gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from models_sample import OPTIMISATION, library_state  # noqa: F401
from onnx import TensorProto, helper, numpy_helper

from pidflow.errors import PidflowError
from pidflow.files import read_json, sha256, write_json
from pidflow.model import ModelInfo, model_digest
from pidflow.models import load, model_of
from pidflow.models.base import Fitting, Tracks
from pidflow.physics import BY_PDG
from pidflow.publish import samples
from pidflow.publish.export import export_bundle
from pidflow.publish.gate import check_bundle
from pidflow.publish.names import COLUMNS_FILE, SCALING_FILE, model_file, p_limits
from pidflow.publish.o2 import O2PidInterface, O2PidModel, O2Tracks
from pidflow.tracks import BY_NAME, o2_label
from pidflow.train import network

pytestmark = [
    pytest.mark.usefixtures("library_state"),
    # a remark of LightGBM on its memory, not on its result
    pytest.mark.filterwarnings("ignore:Usage of np.ndarray subset:UserWarning"),
]

SPECIES = (211, -321)
FEATURES = ("tpc_signal", "trd_signal", "trd_pattern", "tof_signal", "beta", "p", "sign", "trd_chi2")
TOLERANCE = 1e-5


SIZES = {"embedding_hidden": 16, "width": 8, "feed_forward": 16, "pooling_hidden": 8, "classifier_hidden": 8}


def make_model(
    folder: Path, features: tuple[str, ...] = FEATURES, species: tuple[int, ...] = SPECIES, masks: bool = True
) -> Path:
    info = ModelInfo(
        kind="fse",
        run=5,
        species=species,
        features=features,
        masks={"tof": 0.5, "trd": 0.8} if masks else {},
        seed=1,
        settings={"kind": "fse", "network": SIZES},
    )
    torch.manual_seed(3)
    model: Any = model_of("fse")(info, folder)
    built = model.build()
    with torch.no_grad():
        built.encoder.inputs.mean.copy_(torch.linspace(-5, 80, len(features)))
        built.encoder.inputs.std.copy_(torch.linspace(0.5, 30, len(features)))
        for parameter in built.heads.parameters():
            parameter.mul_(4)
        trained = network.calibrated(model, built)
        trained.slope.copy_(torch.linspace(0.8, 1.3, trained.slope.numel()).reshape(trained.slope.shape))
        trained.offset.copy_(torch.linspace(-0.5, 0.5, trained.offset.numel()).reshape(trained.offset.shape))
    folder.mkdir(parents=True, exist_ok=True)
    network.save_network(model, trained)
    info.write(folder)
    return folder


def make_dataset(path: Path, features: tuple[str, ...] = FEATURES, rows: int = 200) -> Path:
    """Write tracks of which some lack what a detector gives."""
    rng = np.random.default_rng(1)
    values = 20 + 30 * rng.normal(size=(rows, len(features)))
    columns = {}
    for index, name in enumerate(features):
        lacks = rng.random(rows) < (0.4 if BY_NAME[name].detector in ("trd", "tof") else 0.0)
        columns[name] = pa.array(values[:, index].astype(np.float32), mask=lacks)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "dataset.parquet")


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
    trained: Any = load(model_dir)
    with torch.no_grad():
        certainty: np.ndarray = trained.trained(torch.from_numpy(raw)).numpy()
    return certainty


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
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    weights = sum(tensor.ByteSize() for tensor in graph.graph.initializer)
    assert weights < 1.5 * (model_dir / "weights.safetensors").stat().st_size


def test_export_gives_the_same_bytes_again(model_dir: Path, exported: Path, tmp_path: Path) -> None:
    for path in export_bundle(model_dir, tmp_path):
        assert sha256(path) == sha256(exported / path.name)


def test_model_without_a_graph_is_not_exported(tmp_path: Path) -> None:
    ModelInfo(
        kind="nsigma", run=1, species=(211,), features=("p",), masks={}, seed=0, settings={"kind": "nsigma"}
    ).write(tmp_path)
    with pytest.raises(PidflowError, match="kind 'nsigma' has no ONNX graph; publish another model"):
        export_bundle(tmp_path, tmp_path / "out")


def test_gate_passes_and_reports(bundle: Path, model_dir: Path, dataset: Path) -> None:
    report = check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)
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
    dataset = make_dataset(tmp_path / "dataset.parquet", features)
    check_bundle(tmp_path / "bundle", model, TOLERANCE, dataset=dataset, rows=100)


def fitted(folder: Path, kind: str, dataset: Path, **settings: object) -> Path:
    """Fit a small model of any kind to the dataset, the sign of one feature telling the species apart."""
    raw = samples.from_dataset(dataset, FEATURES, 200)
    number = FEATURES.index("sign")
    tracks = Tracks(raw, np.stack([raw[:, number] > 0, raw[:, number] < -10], axis=1).astype(np.float32))
    given = model_of(kind).Settings.model_validate({"kind": kind, **settings}).model_dump(mode="json")
    info = ModelInfo(
        kind=kind, run=5, species=SPECIES, features=FEATURES, masks={"tof": 0.5, "trd": 0.8}, seed=1, settings=given
    )
    folder.mkdir(parents=True)
    needed = {}
    if kind == "blend":
        needed = {
            "mlp": fitted(folder.with_name("mlp"), "mlp", dataset, hidden=[8], optimisation=OPTIMISATION),
            "gbdt": fitted(folder.with_name("gbdt"), "gbdt", dataset, trees=5),
        }
    model_of(kind)(info, folder).fit(tracks, tracks, Fitting(threads=1, checkpoint=folder / ".c", needed=needed))
    info.write(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mlp", {"hidden": [8], "missing": "delete", "optimisation": OPTIMISATION}),
        ("mlp", {"hidden": [8], "missing": "regression", "optimisation": OPTIMISATION}),
        ("pattern_ensemble", {"hidden": [8], "optimisation": OPTIMISATION}),
        ("tabm", {"hidden": [8], "members": 3, "encoding_size": 3, "optimisation": OPTIMISATION}),
        ("deep_ensemble", {"members": 2, "network": {"network": SIZES, "optimisation": OPTIMISATION | {"epochs": 1}}}),
        ("gbdt", {"trees": 5}),
        ("random_forest", {"trees": 5}),
        ("blend", {"members": ["mlp", "gbdt"]}),
    ],
)
def test_gate_passes_for_every_kind(kind: str, settings: dict[str, object], tmp_path: Path, dataset: Path) -> None:
    model = fitted(tmp_path / "model", kind, dataset, **settings)
    export_bundle(model, tmp_path / "bundle")
    report = check_bundle(tmp_path / "bundle", model, TOLERANCE, dataset=dataset, rows=200)
    assert report["worst_difference"] < TOLERANCE
    # a graph of the other species does not pass
    first, second = (tmp_path / "bundle" / model_file(pdg) for pdg in SPECIES)
    first.write_bytes(second.read_bytes())
    with pytest.raises(PidflowError, match="differs from the model"):
        check_bundle(tmp_path / "bundle", model, TOLERANCE, dataset=dataset, rows=200)


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


def test_generated_tracks_lie_around_those_observed() -> None:
    rng = np.random.default_rng(0)
    observed = (rng.normal(size=(500, 3)) * (1, 5, 2) + (10, 0, -3)).astype(np.float32)
    observed[::3, 1], observed[:, 2] = np.nan, np.nan
    found = samples.around(observed, 4000, 3)
    assert found.shape == (4000, 3) and found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(axis=0), [10, 0, 0], atol=0.6)
    np.testing.assert_allclose(found.std(axis=0), [1.5, 7.5, 0], rtol=0.1)
    np.testing.assert_array_equal(samples.around(observed, 4000, 3), found)


def rewrite(bundle: Path, change: object) -> None:
    path = bundle / model_file(-321)
    graph = onnx.load(path)
    change(graph)  # type: ignore[operator]
    onnx.save(graph, path)


def node(graph: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(item for item in graph.graph.node if item.op_type == kind)


def without_scaling(graph: onnx.ModelProto) -> None:
    for tensor in graph.graph.initializer:
        if tensor.name in ("network.network.encoder.inputs.mean", "network.network.encoder.inputs.std"):
            value = np.full(tensor.dims, float(tensor.name.endswith("std")), np.float32)
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
    last = graph.graph.node[-1]
    graph.graph.node.append(helper.make_node("Reshape", ["whole", "one"], [last.output[0]]))
    last.output[0] = "whole"


def dynamic_columns(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "f"


def second_output(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Identity", [graph.graph.output[0].name], ["twice"]))
    graph.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", 1]))


def double_output(graph: onnx.ModelProto) -> None:
    last = graph.graph.node[-1]
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
        (without_scaling, "differs from the model"),
        (without_sigmoid, r"leaves \[0, 1\]|must end with a sigmoid"),
        (without_mask, "not finite"),
        (without_clamp, "not finite|differs"),
        (swapped_inputs, "differs from the model"),
        (frozen_input, "frozen at 2 in its input"),
        (frozen_output, "frozen at 1 in its output"),
        (frozen_inside, "fails for|tracks give"),
        (dynamic_columns, r"input is not \[n, 8\]"),
        (second_output, "2 outputs instead of one"),
        (double_output, "output is not float32"),
        (external_data, "in another file"),
        (newer_opset, "beyond IR 9 and"),
        (newer_ir, "IR 10"),
        (broken_node, "checker refuses"),
    ],
)
def test_gate_stops_a_planted_defect(
    bundle: Path, model_dir: Path, dataset: Path, defect: object, message: str
) -> None:
    rewrite(bundle, defect)
    write_json(bundle / "gate.json", {})
    with pytest.raises(PidflowError, match=message) as caught:
        check_bundle(bundle, model_dir, TOLERANCE, rows=200, dataset=dataset)
    assert str(bundle / model_file(-321)) in str(caught.value)
    assert not (bundle / "gate.json").exists()


def test_gate_stops_wrong_json(bundle: Path, model_dir: Path, dataset: Path) -> None:
    content = read_json(bundle / COLUMNS_FILE)
    labels = content["columns_for_training"]
    write_json(bundle / COLUMNS_FILE, {"columns_for_training": [labels[1], labels[0], *labels[2:]]})
    with pytest.raises(PidflowError, match=r"columns_for_training\.json: the columns"):
        check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)
    write_json(bundle / COLUMNS_FILE, content)
    scaling = read_json(bundle / SCALING_FILE)
    for rows in (scaling["data"][:-1], [[labels[0], 80.0, 30.0], *scaling["data"][1:]]):
        write_json(bundle / SCALING_FILE, {**scaling, "data": rows})
        with pytest.raises(PidflowError, match=r"scaling_params\.json: the scaling"):
            check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)


def test_gate_stops_missing_foreign_and_unreadable_files(bundle: Path, model_dir: Path, dataset: Path) -> None:
    kept = (bundle / model_file(211)).read_bytes()
    (bundle / model_file(211)).write_bytes(b"no graph at all")
    with pytest.raises(PidflowError, match="no ONNX file"):
        check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)
    (bundle / model_file(211)).unlink()
    with pytest.raises(PidflowError, match=r"attention_model_211\.onnx: the file is missing"):
        check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)
    (bundle / model_file(211)).write_bytes(kept)
    (bundle / model_file(2212)).write_bytes(kept)
    with pytest.raises(PidflowError, match="no such species"):
        check_bundle(bundle, model_dir, TOLERANCE, dataset=dataset)


def test_gate_stops_a_feature_that_o2physics_cannot_deliver(tmp_path: Path, dataset: Path) -> None:
    model = make_model(tmp_path / "model", ("p", "its_mean_cluster_size"), (211,))
    export_bundle(model, tmp_path / "bundle")
    with pytest.raises(PidflowError, match="its_mean_cluster_size"):
        check_bundle(tmp_path / "bundle", model, TOLERANCE, dataset=dataset)


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
    raw = (5 + 6 * np.random.default_rng(2).standard_normal((40, 8))).astype(np.float32)
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
