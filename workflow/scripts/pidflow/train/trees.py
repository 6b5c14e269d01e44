"""Ensembles of decision trees in one form, whichever library grew them: their sum, their ONNX graph, their file.

Trees follow one another in flat arrays. A tree of s splits has s + 1 leaves, so the two numbers of its first split
and first leaf follow from the number of splits before it. A child is the number of a split, or, below zero, the
complement ``~leaf`` of the number of a leaf; this is LightGBM's own form.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pidflow.errors import PidflowError
from pidflow.files import replacing

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_PATHS = 2**18  # rows times trees that are followed together
_LIGHTGBM_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold, include/LightGBM/meta.h
_LIGHTGBM_DEFAULT_LEFT, _LIGHTGBM_MISSING_NAN = 2, 8  # bits of decision_type, include/LightGBM/tree.h


@dataclass(frozen=True)
class Forest:
    """A sum of decision trees with one or several outputs.

    Attributes
    ----------
    feature
        int32 [M], position of the feature that a split looks at.
    threshold
        float32 [M]; a smaller value, or an equal one unless `strict`, goes left.
    missing_left
        bool [M], whether NaN goes left.
    left, right
        int32 [M], children.
    first
        int32 [T + 1], first split of each tree, and M.
    value
        float32 or float64 [M + T, S], what each leaf adds to each output.
    base
        float64 [S], what the sum starts from.
    strict
        Whether the comparison is ``<`` instead of ``<=``.
    sigmoid
        Whether the certainty is the sigmoid of the sum instead of the sum itself.
    """

    feature: Ints
    threshold: Floats
    missing_left: NDArray[np.bool_]
    left: Ints
    right: Ints
    first: Ints
    value: NDArray[np.floating[Any]]
    base: NDArray[np.float64]
    strict: bool
    sigmoid: bool

    @property
    def trees(self) -> int:
        """Number of trees."""
        return len(self.first) - 1

    @cached_property
    def _root(self) -> Ints:
        leaf: Ints = np.add(self.first[:-1], np.arange(self.trees, dtype=np.int32))
        return np.where(np.diff(self.first) > 0, self.first[:-1], ~leaf)

    def _leaves(self, features: Floats) -> Ints:
        """Return the leaf int32 [n, T] that each row [n, F] reaches in each tree."""
        reached = np.tile(self._root, len(features))
        path = np.flatnonzero(reached >= 0)
        place, row = reached[path], path // self.trees
        while path.size:
            value, threshold = features[row, self.feature[place]], self.threshold[place]
            left = value < threshold if self.strict else value <= threshold
            left |= np.isnan(value) & self.missing_left[place]
            place = np.where(left, self.left[place], self.right[place])
            reached[path] = place
            on = place >= 0
            path, place, row = path[on], place[on], row[on]
        return ~reached.reshape(len(features), self.trees)

    def raw(self, features: Floats) -> NDArray[np.float64]:
        """Return the sums float64 [N, S] of features float32 [N, F], NaN where missing."""
        sums = np.tile(self.base, (len(features), 1))
        step = max(1, _PATHS // max(1, self.trees))
        for start in range(0, len(features), step):
            for leaf in self._leaves(features[start : start + step]).T:
                sums[start : start + step] += self.value[leaf]
        return sums

    def certainty(self, features: Floats) -> Floats:
        """Return the certainties float32 [N, S] of features float32 [N, F], NaN where missing."""
        raw = self.raw(features)
        certainty = np.reciprocal(1 + np.exp(-raw)) if self.sigmoid else raw.clip(0, 1)
        return certainty.astype(np.float32)

    def graph(self, features: int, output: int = 0) -> onnx.ModelProto:
        """Return the ONNX graph of one output's certainty.

        Parameters
        ----------
        features
            Number F of features: the graph takes ``features`` float32 [n, F] and gives ``certainty`` float32 [n, 1].
        output
            Position of the output.
        """
        from onnx import TensorProto, helper

        last = ["certainty"]
        nodes = [
            helper.make_node(
                "TreeEnsembleRegressor",
                ["features"],
                ["sum"],
                domain="ai.onnx.ml",
                n_targets=1,
                aggregate_function="SUM",
                post_transform="NONE",
                base_values=[float(self.base[output])],
                **self._attributes(output),
            ),
            helper.make_node("Sigmoid", ["sum"], last)
            if self.sigmoid
            else helper.make_node("Clip", ["sum", "lowest", "highest"], last),
        ]
        bounds = () if self.sigmoid else (("lowest", 0.0), ("highest", 1.0))
        model: onnx.ModelProto = helper.make_model(
            helper.make_graph(
                nodes,
                "trees",
                [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", features])],
                [helper.make_tensor_value_info("certainty", TensorProto.FLOAT, ["n", 1])],
                [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in bounds],
            ),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
            ir_version=8,
        )
        return model

    def _attributes(self, output: int) -> dict[str, list[Any]]:
        """Return the arrays of a TreeEnsembleRegressor: per tree its splits, then its leaves."""
        splits = np.diff(self.first)
        trees, first_leaf = np.arange(self.trees), self.first + np.arange(self.trees + 1)
        of_split, of_leaf = trees.repeat(splits), trees.repeat(splits + 1)
        split, leaf = np.arange(splits.sum()), np.arange(first_leaf[-1])
        at_split, at_leaf = split + first_leaf[of_split], leaf + self.first[of_leaf + 1]
        leaf_id = leaf - first_leaf[of_leaf] + splits[of_leaf]

        def together(at_splits: Any, at_leaves: Any) -> list[Any]:
            both = np.empty(len(split) + len(leaf), np.result_type(np.asarray(at_splits), np.asarray(at_leaves)))
            both[at_split], both[at_leaf] = at_splits, at_leaves
            values: list[Any] = both.tolist()
            return values

        def identity(child: Ints) -> NDArray[np.int64]:
            return np.where(child >= 0, child - self.first[of_split], leaf_id[~child])

        return {
            "nodes_treeids": together(of_split, of_leaf),
            "nodes_nodeids": together(split - self.first[of_split], leaf_id),
            "nodes_modes": together("BRANCH_LT" if self.strict else "BRANCH_LEQ", "LEAF"),
            "nodes_featureids": together(self.feature, 0),
            "nodes_values": together(self.threshold, np.float32(0)),
            "nodes_truenodeids": together(identity(self.left), 0),
            "nodes_falsenodeids": together(identity(self.right), 0),
            "nodes_missing_value_tracks_true": together(self.missing_left.astype(int), 0),
            "target_treeids": of_leaf.tolist(),
            "target_nodeids": leaf_id.tolist(),
            "target_ids": np.zeros_like(leaf).tolist(),
            "target_weights": self.value[:, output].tolist(),
        }

    def save(self, path: str | Path) -> None:
        """Write the forest in the safetensors format."""
        from safetensors.numpy import save

        arrays = {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in dataclasses.fields(self)}
        with replacing(path) as temporary:
            temporary.write_bytes(save(arrays))


def load(path: str | Path) -> Forest:
    """Read a forest that `Forest.save` wrote.

    Raises
    ------
    PidflowError
        If the file is absent or broken.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        flags = {name: bool(arrays.pop(name)) for name in ("strict", "sigmoid")}
        return Forest(**arrays, **flags)  # type: ignore[arg-type]
    except (OSError, SafetensorError, KeyError, TypeError):
        raise PidflowError(f"{path}: no trees can be read from it; train the model again") from None


def _at_most(threshold: NDArray[np.float64]) -> Floats:
    """Return the largest float32 [M] that is not above each float64 [M]; a float32 value is below both or neither."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = threshold.astype(np.float32)
        return np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _one_after_another(
    trees: Iterable[dict[str, NDArray[Any]]], base: NDArray[np.float64], *, strict: bool, sigmoid: bool
) -> Forest:
    """Return the forest of trees, each with its arrays and children numbered from zero."""
    parts = list(trees)
    first = np.cumsum([0, *(len(part["feature"]) for part in parts)])
    for number, part in enumerate(parts):
        for side in ("left", "right"):
            child = part[side]
            part[side] = np.where(child >= 0, child + first[number], child - first[number] - number)

    def joined(name: str, type_: type) -> Any:
        return np.concatenate([part[name] for part in parts]).astype(type_)

    return Forest(
        feature=joined("feature", np.int32),
        threshold=joined("threshold", np.float32),
        missing_left=joined("missing_left", np.bool_),
        left=joined("left", np.int32),
        right=joined("right", np.int32),
        first=first.astype(np.int32),
        value=np.concatenate([part["value"] for part in parts]),
        base=base,
        strict=strict,
        sigmoid=sigmoid,
    )


def _splits_and_leaves(
    left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], threshold: NDArray[Any],
    missing_left: NDArray[Any], value: NDArray[Any],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Return one tree of a table of nodes, where a left child below zero marks a leaf, without unreachable nodes."""
    levels, level = [], np.zeros(1, int)
    while level.size:
        levels.append(level)
        inner = level[left[level] >= 0]
        level = np.concatenate([left[inner], right[inner]])
    order = np.concatenate(levels)
    leaf = left[order] < 0
    inner = order[~leaf]
    number = np.empty(len(left), int)
    number[inner], number[order[leaf]] = np.arange(len(inner)), ~np.arange(leaf.sum())
    return {
        "feature": feature[inner],
        "threshold": threshold[inner],
        "missing_left": missing_left[inner],
        "left": number[left[inner]],
        "right": number[right[inner]],
        "value": value[order[leaf]],
    }


def _lightgbm_tree(text: str) -> dict[str, NDArray[Any]]:
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def numbers(name: str, type_: type) -> NDArray[Any]:
        return np.array(fields.get(name, "").split(), dtype=type_)

    threshold, decision = numbers("threshold", float), numbers("decision_type", int)
    # where training met no missing value, NaN counts as zero
    aware = decision & _LIGHTGBM_MISSING_NAN > 0
    exact = _at_most(threshold)
    return {
        "feature": numbers("split_feature", int),
        # a value of this size or less counts as zero and thus goes right
        "threshold": np.where(exact == -_LIGHTGBM_ZERO, np.nextafter(exact, np.float32(-np.inf)), exact),
        "missing_left": np.where(aware, decision & _LIGHTGBM_DEFAULT_LEFT > 0, threshold >= 0),
        "left": numbers("left_child", int),
        "right": numbers("right_child", int),
        "value": numbers("leaf_value", float)[:, None],
    }


def from_lightgbm(booster: Any) -> Forest:
    """Return the forest of a binary ``lightgbm.Booster`` of numerical features.

    Source of the rules: LightGBM ``include/LightGBM/tree.h``, ``Tree::NumericalDecision``.
    """
    text = booster.model_to_string().split("\nend of trees")[0]
    trees = (_lightgbm_tree(tree) for tree in text.split("\nTree=")[1:])
    return _one_after_another(trees, np.zeros(1), strict=False, sigmoid=True)


def from_xgboost(booster: Any) -> Forest:
    """Return the forest of an ``xgboost.Booster`` with the objective binary:logistic and numerical features.

    Source of the form: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.
    """
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = (
        _splits_and_leaves(
            left=np.array(tree["left_children"]),
            right=np.array(tree["right_children"]),
            feature=np.array(tree["split_indices"]),
            threshold=np.array(tree["split_conditions"], np.float32),
            missing_left=np.array(tree["default_left"], bool),
            value=np.array(tree["split_conditions"], np.float32)[:, None],
        )
        for tree in learner["gradient_booster"]["model"]["trees"]
    )
    share = np.array(json.loads(learner["learner_model_param"]["base_score"]), float).reshape(1)
    return _one_after_another(trees, np.log(share / (1 - share)), strict=True, sigmoid=True)


def from_sklearn(classifier: Any, classes: Iterable[int]) -> Forest:
    """Return the forest of a ``sklearn.ensemble.RandomForestClassifier`` of one label.

    Parameters
    ----------
    classifier
        Fitted classifier.
    classes
        Label of each output; one that training has not met has probability zero.

    Notes
    -----
    Source of the rules: scikit-learn ``sklearn/tree/_tree.pyx``, ``Tree._apply_dense``.
    """
    wanted = np.equal.outer(classifier.classes_, list(classes)) / len(classifier.estimators_)
    tables = (estimator.tree_ for estimator in classifier.estimators_)
    trees = (
        _splits_and_leaves(
            left=table.children_left,
            right=table.children_right,
            feature=table.feature,
            threshold=_at_most(table.threshold),
            missing_left=table.missing_go_to_left.astype(bool),
            value=(table.value[:, 0] @ wanted).astype(np.float32),
        )
        for table in tables
    )
    return _one_after_another(trees, np.zeros(wanted.shape[1]), strict=False, sigmoid=False)
