"""Operators of ai.onnx.ml, which scikit-learn's exporters write: each row [N, C] of a table by itself."""

from collections.abc import Sequence

from stepgraph.rules.axes import Axis, plain
from stepgraph.rules.table import Call, over, rule, whole
from stepgraph.rules.value import Value, joined, unknown

_ML = "ai.onnx.ml"
_SAYS = "local over features; mixes over steps or rows"
_CLASSES = ("classlabels_ints", "classlabels_int64s", "classlabels_strings")


@rule("Binarizer CategoryMapper LabelEncoder", domain=_ML)
def elementwise(call: Call) -> Value:
    return joined(call.all, call.value().axes)


@rule("Imputer Scaler", domain=_ML)
def by_column(call: Call) -> Value:
    """With one number for all elements, or for each column."""
    x = call.value()
    numbers = [each for each in call.attributes.values() if isinstance(each, Sequence) and len(each) > 1]
    if numbers and (len(x.axes) != 2 or whole(x.axes[1]) is None):
        raise unknown("has a number for each of a fixed number of steps or sequences")
    return joined([x], x.axes)


@rule("Normalizer", says=_SAYS, domain=_ML)
def normalised(call: Call) -> Value:
    x = call.value()
    over(x, [len(x.axes) - 1], "normalises")
    return joined([x], x.axes)


@rule("OneHotEncoder", domain=_ML)
def one_hot(call: Call) -> Value:
    x = call.value()
    return joined([x], (*x.axes, plain(len(call.attributes.get("cats_int64s") or call.attributes["cats_strings"]))))


@rule("ArrayFeatureExtractor", domain=_ML)
def columns(call: Call) -> Value:
    x, index = call.value(0), call.value(1)
    if whole(x.axes[-1]) is None or index.live:
        raise unknown("picks steps that cannot be told from the file")
    return joined([x], (*(x.axes[:-1] or ((),)), index.axes[-1]))


@rule("FeatureVectorizer", domain=_ML)
def side_by_side(call: Call) -> Value:
    return joined(call.all, (_rows(call), plain(sum(call.attributes["inputdimensions"]))))


@rule("LinearRegressor SVMRegressor TreeEnsemble TreeEnsembleRegressor", says=_SAYS, domain=_ML)
def regression(call: Call) -> Value:
    return _weighed(call, int(call.attributes.get("targets") or call.attributes.get("n_targets") or 1))


@rule("LinearClassifier SVMClassifier TreeEnsembleClassifier", says=_SAYS, domain=_ML)
def classification(call: Call) -> list[Value]:
    """The class, and a number for each of them; a vector machine without odds has one for each pair of them."""
    given = call.attributes
    count = next(len(given[name]) for name in _CLASSES if given.get(name))
    if (
        call.node.op_type == "SVMClassifier"
        and count > 2
        and given.get("vectors_per_class")
        and not given.get("prob_a")
    ):
        count = count * (count - 1) // 2
    scores = _weighed(call, count)
    return [joined([scores], scores.axes[:1]), scores]


def _weighed(call: Call, count: int) -> Value:
    over(call.value(), range(1, len(call.value().axes)), "weighs")
    return joined(call.all, (_rows(call), plain(count)))


def _rows(call: Call) -> Axis:
    """The axis of rows of a table of features."""
    if any(len(x.axes) != 2 or whole(x.axes[1]) is None for x in call.all):
        raise unknown("takes other tables than those of features")
    return call.value().axes[0]
