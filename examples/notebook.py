# %% [markdown]
# A model file without a server: what it holds, one step after the other, its gates, and its state as a value.
# Run it as it stands, or open it as a notebook (each `# %%` is a cell).

# %%
from pathlib import Path

import stepgraph

FILE = Path(__file__).parents[1] / "models" / "recall" / "1" / "model.onnx"

# %% what the file holds, and whether it can be cut into steps
checked = stepgraph.check(FILE)
assert checked.report.served
print(checked)

# %% a value is written, others come, and it is read: which gate is open when
model = stepgraph.load(FILE)
state = None  # begins anew
for row in [(-0.3, 0, 0), (0.8, 1, 0), (-0.5, 0, 0), (0.4, 0, 0), (-0.9, 0, 1)]:  # value, write, read
    answer, state = model.step(row, state)
    gates = answer.layer[0]
    print(f"{answer.step}: {answer.output[0]:.2f}  input {gates.input[0]:.2f}  forget {gates.forget[0]:.2f}")

# %% a state is a value: two sequences go on from the same one
for value in (0.1, -0.7):
    written, after = model.step((value, 1, 0), state)
    read, _ = model.step((0, 0, 1), after)
    print(f"{value} was written: {read.output[0]:.2f} is read")
