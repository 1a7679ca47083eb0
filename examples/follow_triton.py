r"""Follows one sequence with NVIDIA's client for Triton, unchanged: each line of standard input is a step.

pip install 'tritonclient[grpc]'
python -m server &
printf '0.8,1,0\n-0.5,0,0\n0.1,0,1\n' | python examples/follow_triton.py localhost:50051 recall
"""

import argparse
import queue
import sys

import numpy as np
import tritonclient.grpc as triton


def main() -> None:
    """Prints each step, its output, and the mean over the units of a gate, which is an output asked for by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server")
    parser.add_argument("model")
    parser.add_argument("--id", default="followed", help="what the sequence is called; it goes on if it is there")
    given = parser.parse_args()
    answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    with triton.InferenceServerClient(given.address) as client:
        described = client.get_model_metadata(given.model)
        name, output = described.inputs[0].name, described.outputs[0].name
        wanted = [triton.InferRequestedOutput(each) for each in (output, "layer0.forget")]
        client.start_stream(lambda result, error: answers.put((result, error)))
        lines = [line for line in sys.stdin if line.strip()]
        for at, line in enumerate(lines):
            row = np.array([line.split(",")], np.float32)
            step = triton.InferInput(name, list(row.shape), "FP32")
            step.set_data_from_numpy(row)
            client.async_stream_infer(
                given.model,
                [step],
                outputs=wanted,
                sequence_id=given.id,
                sequence_start=at == 0,
                sequence_end=at == len(lines) - 1,
            )
            result, error = answers.get()
            if result is None:
                sys.exit(str(error))
            forget = result.as_numpy("layer0.forget").mean()
            print(f"{at}: {result.as_numpy(output)[0].tolist()}  forget {forget:.2f}", flush=True)
        client.stop_stream()


if __name__ == "__main__":
    main()
