"""Tags and lengths as protobuf writes them."""

import onnx

from onnxq import fields


def test_field_numbers_are_those_of_onnx():
    numbers = {
        fields.MODEL_GRAPH: onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"],
        fields.GRAPH_INITIALIZER: onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"],
        fields.TENSOR_RAW_DATA: onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"],
    }
    for tag, field in numbers.items():
        assert tag[0] == field.number << 3 | 2
