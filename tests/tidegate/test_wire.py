import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tidegate import wire
from tidegate.v1 import error_pb2, tensor_pb2
from tidegate.v1.tensor_pb2 import Tensor

TYPES = [number for name, number in tensor_pb2.DataType.items() if number]
DTYPES = [wire.dtype_of(number) for number in TYPES]
F32, I64, U8, BOOL = (tensor_pb2.DataType.Value(f"DATA_TYPE_{name}") for name in ("FLOAT32", "INT64", "UINT8", "BOOL"))

arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


@given(array=arrays, name=st.text(max_size=5))
def test_every_type_and_shape_comes_back_bit_for_bit(array: np.ndarray, name: str) -> None:
    tensor = Tensor.FromString(wire.encode(name, array, tensor_pb2.ENCODING_RAW).SerializeToString())
    back = wire.decode(tensor)
    assert (tensor.name, back.dtype, back.shape) == (name, array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@given(array=arrays.filter(lambda array: array.dtype.itemsize < 8 or array.dtype.kind == "f"))
def test_values_that_a_person_can_read_come_back_as_they_were(array: np.ndarray) -> None:
    tensor = wire.encode("x", array, tensor_pb2.ENCODING_VALUES)
    tensor.MergeFromString(b"\xf8\x7f\x01")  # a field that nobody knows
    back = wire.decode(tensor)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_type_and_its_number_are_each_others_inverse(dtype: np.dtype) -> None:
    assert wire.dtype_of(wire.data_type_of(dtype)) == dtype


def test_bytes_are_little_endian_whatever_the_array_is() -> None:
    big = np.array([1, 2], ">i4")
    tensor = wire.encode("x", big, 0)
    assert tensor.data == b"\1\0\0\0\2\0\0\0"
    assert wire.decode(tensor).tolist() == [1, 2]


def test_rows_go_out_in_order_also_from_a_transposed_or_strided_array() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(wire.decode(wire.encode("x", array, 0)), array)


def test_decoding_copies_nothing_and_cannot_be_written_into() -> None:
    tensor = wire.encode("x", np.zeros(4, np.float32), 0)
    for decoded in (wire.decode(tensor), wire.decode(wire.encode("x", np.ones(2), tensor_pb2.ENCODING_VALUES))):
        with pytest.raises(ValueError, match="read-only"):
            decoded[0] = 1


@pytest.mark.parametrize(
    ("tensor", "reason", "words"),
    [
        (Tensor(name="x", type=F32, shape=[2], data=b"1234"), "WRONG_SIZE", "'x' has 4 bytes; 2 elements.* take 8"),
        (Tensor(type=F32, shape=[2], values=[1]), "WRONG_SIZE", "the tensor has 1 values; 2 elements"),
        (Tensor(type=F32, shape=[3]), "WRONG_SIZE", "0 bytes"),
        (Tensor(type=F32, shape=[-2, -2], data=bytes(16)), "WRONG_SHAPE", "negative axis"),
        (Tensor(type=F32, shape=[0, 2**62, 2**62]), "WRONG_SHAPE", "too big"),
        (Tensor(type=F32, shape=[1] * 80, data=bytes(4)), "WRONG_SHAPE", "80 axes; 32 is the limit"),
        (Tensor(type=F32, shape=[2**62] * 32), "WRONG_SIZE", "were expected|take"),
        (Tensor(type=77, shape=[1], data=b"1"), "WRONG_TYPE", "77 is not a DataType"),
        (Tensor(shape=[1], data=b"1"), "WRONG_TYPE", "0 is not a DataType"),
        (Tensor(type=BOOL, shape=[1], data=b"\2"), "WRONG_TYPE", "neither 0 nor 1"),
        (Tensor(type=U8, shape=[1], values=[0.5]), "WRONG_TYPE", "holds 0.5; whole numbers 0 to 255"),
        (Tensor(type=U8, shape=[1], values=[256]), "WRONG_TYPE", "256"),
        (Tensor(type=I64, shape=[1], values=[2.0**63]), "WRONG_TYPE", "9.22337e"),
        (Tensor(type=I64, shape=[1], values=[float("nan")]), "WRONG_TYPE", "nan"),
        (Tensor(type=F32, shape=[1], data=bytes(4), values=[1]), "MALFORMED", "both data and values"),
    ],
)
def test_a_tensor_that_makes_no_sense_says_what_was_wrong(tensor: Tensor, reason: str, words: str) -> None:
    with pytest.raises(wire.WireError, match=words) as caught:
        wire.decode(tensor)
    assert error_pb2.Reason.Name(caught.value.reason) == f"REASON_{reason}"


def test_a_type_that_no_tensor_carries_is_refused_by_name() -> None:
    with pytest.raises(wire.WireError, match="cannot hold complex128; it can hold float32"):
        wire.encode("x", np.zeros(1, complex), 0)


def test_a_value_beyond_its_float_type_becomes_infinite_for_the_models_check_to_refuse() -> None:
    assert np.isinf(wire.decode(Tensor(type=F32, shape=[1], values=[1e300]))).all()


def test_axes_are_counted_before_they_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[int] = []
    monkeypatch.setattr(wire.math, "prod", lambda shape: multiplied.append(len(shape)) or 1)
    with pytest.raises(wire.WireError, match="100000 axes; 32 is the limit"):
        wire.decode(Tensor(type=F32, shape=[2**62] * 100_000))
    assert not multiplied
