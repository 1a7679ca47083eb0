"""The operators of ai.onnx.ml, which scikit-learn's exporters write, put on a tensor that was drawn."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.drawn.graphs import ML, Drawing
from tests.drawn.operators import floats, integers, pick, puts

_TREE = {  # one question, of the first feature
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.1, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}


def ml(d: Drawing, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
    return d.op(operator, *inputs, outputs=outputs, domain=ML, **attributes)


def table(d: Drawing) -> tuple[str, int]:
    """A tensor with its last axis, which is of features, behind one of all others."""
    x = pick(d, 1)
    n = d.sized(x, len(d.axes(x)) - 1)
    return (x if len(d.axes(x)) == 2 else d.op("Reshape", x, d.whole([-1, n]))), n


def numbers(d: Drawing, count: int) -> list[float]:
    return [float(n) for n in d.random.standard_normal(count)]


@puts("Binarizer CategoryMapper LabelEncoder")
def each(d: Drawing, operator: str) -> str:
    x = pick(d)
    if operator == "Binarizer":
        return ml(d, operator, x, threshold=0.2)
    if operator == "LabelEncoder":
        return ml(d, operator, floats(d, integers(d, x)), keys_floats=[0.0, 1.0], values_floats=[3.0, 5.0])
    names = ml(d, operator, integers(d, x, TensorProto.INT64), cats_int64s=[0, 1, 2], cats_strings=["a", "b", "c"])
    return floats(d, ml(d, operator, names, cats_int64s=[7, 8, 9], cats_strings=["a", "b", "c"]))


@puts("Imputer Scaler")
def columns_alike(d: Drawing, operator: str) -> str:
    x, n = (pick(d, 1), 1) if d.chance(0.5) else table(d)
    if operator == "Imputer":
        x = d.op("Where", d.op("Less", x, d.constant(0.0)), d.constant(np.nan), x)
        return ml(d, operator, x, imputed_value_floats=numbers(d, n), replaced_value_float=float("nan"))
    return ml(d, operator, x, offset=numbers(d, n), scale=numbers(d, n))


@puts("Normalizer")
def normalised(d: Drawing) -> str:
    x = pick(d, 2)
    x = x if len(d.axes(x)) == 2 else d.op("Flatten", x, axis=d.number(1, len(d.axes(x)) - 1))
    return ml(d, "Normalizer", x, norm=d.of("MAX", "L1", "L2"))


@puts("OneHotEncoder")
def one_hot(d: Drawing) -> str:
    return ml(d, "OneHotEncoder", integers(d, pick(d), TensorProto.INT64), cats_int64s=[0, 1, 2])


@puts("ArrayFeatureExtractor")
def columns(d: Drawing) -> str:
    x = pick(d, 1)
    return ml(d, "ArrayFeatureExtractor", x, d.whole(d.of([0], [1, 0])))


@puts("FeatureVectorizer")
def side_by_side(d: Drawing) -> str:
    x, n = table(d)
    return ml(d, "FeatureVectorizer", x, d.op("Tanh", x), inputdimensions=[n, n])


@puts("LinearRegressor SVMRegressor TreeEnsemble TreeEnsembleRegressor")
def regression(d: Drawing, operator: str) -> str:
    x, n = table(d)
    if operator == "LinearRegressor":
        return ml(d, operator, x, coefficients=numbers(d, 2 * n), intercepts=numbers(d, 2), targets=2)
    if operator == "SVMRegressor":
        given = {"coefficients": numbers(d, 2), "support_vectors": numbers(d, 2 * n), "n_supports": 2, "rho": [0.1]}
        return ml(d, operator, x, kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], **given)
    if operator == "TreeEnsembleRegressor":
        leaves = {"target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 1]}
        return ml(d, operator, x, n_targets=2, target_weights=[1.0, 2.0], **_TREE, **leaves)
    tensors = {"nodes_splits": [0.1], "leaf_weights": [1.0, 2.0]}
    given = {name: helper.make_tensor(name, TensorProto.FLOAT, [len(v)], v) for name, v in tensors.items()}
    given["nodes_modes"] = helper.make_tensor("nodes_modes", TensorProto.UINT8, [1], [0])
    places = {"nodes_truenodeids": [0], "nodes_trueleafs": [1], "nodes_falsenodeids": [1], "nodes_falseleafs": [1]}
    leaves = {"leaf_targetids": [0, 1], "n_targets": 2, "tree_roots": [0], "nodes_featureids": [0]}
    return ml(d, operator, x, **given, **places, **leaves)


@puts("LinearClassifier SVMClassifier TreeEnsembleClassifier")
def classification(d: Drawing, operator: str) -> str:
    x, n = table(d)
    classes = d.number(2, 4)
    labels = {"classlabels_int64s" if operator[0] == "T" else "classlabels_ints": [*range(classes)]}
    if operator == "LinearClassifier":
        count = 1 if classes == 2 and d.chance(0.5) else classes
        given = {"coefficients": numbers(d, count * n), "intercepts": numbers(d, count)}
    elif operator == "TreeEnsembleClassifier":
        given = _TREE | {
            "class_treeids": [0, 0],
            "class_nodeids": [1, 2],
            "class_ids": [0, 1],
            "class_weights": [1.0, 0.5],
        }
    else:
        pairs = classes * (classes - 1) // 2
        given = {
            "coefficients": numbers(d, classes * (classes - 1)),
            "support_vectors": numbers(d, classes * n),
            "vectors_per_class": [1] * classes,
            "rho": numbers(d, pairs),
            "kernel_type": "LINEAR",
            "kernel_params": [0.5, 0.0, 3.0],
        }
        if d.chance(0.5):
            given |= {"prob_a": numbers(d, pairs), "prob_b": numbers(d, pairs)}
    label = ml(d, operator, x, outputs=2, **labels, **given)
    return floats(d, label) if d.chance(0.3) else label[:-1] + "1"  # its second output
