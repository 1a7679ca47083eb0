#!/bin/sh
# Three steps of one sequence with a stock tool, `buf curl`, which learns the contract from the server's reflection.
#   sh examples/buf_curl.sh http://localhost:50051 recall
# For https:// leave out --http2-prior-knowledge; `--cacert FILE` and `-H "authorization: Bearer TOKEN"` do the rest.
set -eu
buf curl --protocol grpc --http2-prior-knowledge --data @- "$1/tidegate.v1.Tidegate/Stream" <<EOF
{"open": {"handle": 0, "model": "$2", "encoding": "ENCODING_VALUES", "trace": {"parts": ["PART_GATES"]}}}
{"steps": {"handle": 0, "first_step": 0, "inputs": [
  {"type": "DATA_TYPE_FLOAT32", "shape": [3, 3], "values": [0.8, 1, 0,  -0.5, 0, 0,  0.1, 0, 1]}]}}
{"close": {"handle": 0}}
EOF
