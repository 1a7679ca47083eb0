"""Single steps and their answers as bytes, without messages of protobuf: what nearly all of a stream consists of."""
