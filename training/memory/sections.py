"""What the page says: each section from the outcomes, its sentences with the numbers that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.memory.drawing import charts
from training.memory.drawing.lesson import lesson
from training.memory.numbers import HIDDEN, LENGTH, Spread, lengths, of, spread, starts
from training.memory.page import Section, figure, paragraph, table, terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.memory.experiments import Outcome
    from training.memory.numbers import Beginning

ORDER = "temporal-order"
# The temporal-order task asks for this share of its length at most: from the first mark to the end.
ASKED = 0.9


def words() -> Section:
    return Section(
        "The words, in a minute",
        (
            paragraph(
                "A recurrent network reads a sequence step by step: a letter, a measurement, a note at a time. All "
                "that it knows of the steps before is its *state*, a row of numbers that each step replaces by new "
                "ones. Whether it can remember depends on how that replacing is done. In a plain RNN every step "
                "computes the state anew. In an LSTM, the long short-term memory, it is a sum: *new state = forget "
                "gate x old state + input gate x what is new*."
            ),
            terms(
                {
                    "unit": "One number of the state, with the arithmetic that computes it from the input and the old "
                    "state.",
                    "training": "The network answers examples, and after each batch of them its weights, the constants "
                    "of that arithmetic, are changed a little so that its answers would have been less wrong. One such "
                    "change is a *step of training*.",
                    "gate": "A number from 0 (closed) to 1 (open) that the network computes at each step.",
                    "forget gate": "How much of the old state is kept. The name is unlucky: open means remember.",
                    "input gate": "How much of what is new is written into the state.",
                    "output gate": "How much of the state the rest of the network gets to see. The state stays as "
                    "it is.",
                    "gradient": "How much the last answer would change if an early step were a little different. A "
                    "network learns from it: where the gradient is 0, nothing can be learned.",
                    "RNN, GRU, LSTM": "A plain network; one with two gates, of which the update gate says how much of "
                    "the old state is kept; one with three.",
                    "forget bias 1, chrono": "Two ways to begin: the forget gates 73 % open, or open for as "
                    "many steps as the task is long (Tallec & Ollivier 2018). Without either an LSTM begins at "
                    "50 %.",
                    "seed": "The random numbers that a training begins with. Each network is trained with several, "
                    "to see what is luck.",
                    "9e-23": "A very small number: 9 at the 23rd place behind the point.",
                }
            ),
        ),
    )


def one_unit(outcomes: Sequence[Outcome]) -> Section:
    """The lesson's figure, of the seed that learned it best."""
    tried = of(outcomes, "lesson")
    best = min(tried, key=lambda outcome: outcome.course[-1][1])
    values = best.lesson
    learned = sum(outcome.solved_at is not None for outcome in tried)
    said = (
        "The task: remember the number that came with *write*, say it at *read*, be silent otherwise. This is an "
        f"LSTM of one unit after training. At t=1 its input gate opens ({values['input'][1]:.2f}) and the number "
        f"is written. Then the input gate is closed, so that the other numbers change nothing, and the forget gate is "
        f"open (never below {min(values['forget'][2:]):.3f}), so that the state stays as it is. The output gate opens "
        f"at t=4 ({values['output'][4]:.2f}) and t=6 ({values['output'][6]:.2f}), where the answers are "
        f"{values['answer'][4]:.2f} and {values['answer'][6]:.2f}; 0.8 is right. None of this was programmed: "
        "training found the weights that do it."
    )
    caption = (
        "A ring is the fuller, the wider its gate is open: below the unit the input gate, to its left the forget "
        "gate, above it the output gate. In the unit: how much of the value of t=1 it holds. Seed "
        f"{best.experiment.seed}; {learned} of {len(tried)} seeds learned it."
    )
    return Section("One unit that remembers", (paragraph(said), figure(lesson(values), caption=caption), moved(best)))


def moved(outcome: Outcome) -> str:
    """Kept and written by the one unit."""
    picture = charts.flow(outcome.after.kept, outcome.after.written, "size of what the unit keeps and writes")
    return figure(
        picture,
        caption="The state is a sum: what was kept of it (blue) and what was written (orange). At t=1 it is "
        "written, later kept.",
    )


def forgetting(begun: Sequence[Beginning]) -> Section:
    curves = {name: spread([list(one.reach.by_input) for one in begun if one.start == name]) for name in started(begun)}
    last = {name: curve.middle[-1] for name, curve in curves.items()}
    said = (
        "How much does the last answer still depend on the input so many steps back, before anything has been "
        f"learned? For {LENGTH - 1} steps back: RNN {tiny(last['RNN'])}, GRU {tiny(last['GRU'])}, LSTM "
        f"{tiny(last['LSTM'])}. All of them forget, step by step by the same factor, and the factors multiply up: "
        "the *vanishing gradient*. So *an LSTM as it comes is no better than a plain RNN here*. What makes the "
        f"difference is where its forget gates begin: {tiny(last['LSTM, forget bias 1'])} with forget bias 1, "
        f"{tiny(last['LSTM, chrono'])} with chrono."
    )
    caption = (
        f"{HIDDEN} units, sequences of {LENGTH} steps, before training. Line: the middle of the seeds; band: the "
        "lowest and the highest. A line that falls by a square has lost a factor of 10,000."
    )
    panel = charts.Panel("Before any training", curves)
    return Section(
        "Why a network forgets",
        (paragraph(said), figure(charts.key(list(curves)), charts.gradients([panel]), caption=caption)),
    )


def started(begun: Sequence[Beginning]) -> list[str]:
    """The networks' names, in their order."""
    return list(dict.fromkeys(one.start for one in begun))


def opened(outcomes: Sequence[Outcome]) -> Section:
    """Gradients before and after training on temporal order."""
    length = compared(outcomes)
    lag = round(ASKED * length)
    panels, told = [], []
    for title, when in (("Before training", "before"), ("After training", "after")):
        curves = {name: curve(outcomes, length, name, when) for name in starts(outcomes, ORDER)}
        panels.append(charts.Panel(title, curves, lag))
    for name in starts(outcomes, ORDER):
        before, after = (panel.curves[name].middle[lag] for panel in panels)
        told.append([name, tiny(before), tiny(after), solved_of(of(outcomes, ORDER, length, name))])
    said = (
        f"Two symbols, X or Y, lie far apart in a row of {length}; at its end the network must say which came and in "
        f"which order. To learn that, the gradient must not be 0 for an input {lag} steps back. In networks that "
        "learned the task it grew there by orders of magnitude: the more they learned, the more the last state "
        "depended on what came early. Networks whose gradient is tiny to begin with learn the task late, or not at all."
    )
    return Section(
        "What training changes",
        (
            paragraph(said),
            figure(
                charts.key(starts(outcomes, ORDER)),
                charts.gradients(panels, 1e-16),
                caption="Line: the middle of the seeds; band: the lowest and the highest. What lies on the lower edge "
                "is smaller than drawn.",
            ),
            table(["network", f"{lag} steps back, before", "after", "solved"], told),
        ),
    )


def compared(outcomes: Sequence[Outcome]) -> int:
    """The length of the temporal-order task that is looked into."""
    tried = lengths(outcomes, ORDER)
    return tried[min(1, len(tried) - 1)]


def curve(outcomes: Sequence[Outcome], length: int, name: str, when: str) -> Spread:
    """The gradient's size by lag over the seeds."""
    return spread([getattr(outcome, when).by_input for outcome in of(outcomes, ORDER, length, name)])


def solving(outcomes: Sequence[Outcome]) -> Section:
    """Success and steps to solve against length."""
    said = (
        "How many steps of training does a task take, and is it learned at all, the longer the sequences get? "
        "*Adding*: two numbers of a row are marked, say their sum at the end. *Temporal order*: as above. A dot is one "
        "training; those on the dashed line had not learned the task when their steps were used up. They might with "
        "more of them."
    )
    parts = [paragraph(said), charts.key(starts(outcomes, ORDER))]
    for kind, title in (("adding", "Adding"), (ORDER, "Temporal order")):
        parts += [figure(chart(outcomes, kind, title), caption=""), table_of(outcomes, kind)]
    return Section("What it is worth", tuple(parts))


def chart(outcomes: Sequence[Outcome], kind: str, title: str) -> str:
    """Steps to solve of every network at every length."""
    found: dict[str, dict[int, charts.Solved]] = {}
    for name in starts(outcomes, kind):
        found[name] = {}
        for length in lengths(outcomes, kind):
            tried = of(outcomes, kind, length, name)
            found[name][length] = charts.Solved([one.solved_at for one in tried], tried[0].experiment.limit)
    return charts.steps_to_solve(title, found)


def table_of(outcomes: Sequence[Outcome], kind: str) -> str:
    """How many seeds solved it, and in how many steps."""
    tried = lengths(outcomes, kind)
    rows = [
        [name, *(solved_of(of(outcomes, kind, length, name)) for length in tried)] for name in starts(outcomes, kind)
    ]
    return table(["solved by seeds (steps, middle)", *(f"{length} steps long" for length in tried)], rows)


def solved_of(tried: Sequence[Outcome]) -> str:
    """Such as "2 of 3 (350)"."""
    steps = [one.solved_at for one in tried if one.solved_at is not None]
    middle = f" ({np.median(steps):.0f})" if steps else ""
    return f"{len(steps)} of {len(tried)}{middle}"


def no_edge(outcomes: Sequence[Outcome]) -> Section:
    """Latch and short text, as plainly."""
    (length,) = lengths(outcomes, "latch")
    latch = [[name, solved_of(of(outcomes, "latch", length, name))] for name in starts(outcomes, "latch")]
    text = []
    for name in starts(outcomes, "text"):
        bits = [one.course[-1][1] for one in of(outcomes, "text", start=name)]
        text.append([name, f"{np.mean(bits):.2f}", f"{min(bits):.2f} to {max(bits):.2f}"])
    steps = of(outcomes, "text")[0].steps
    asked = ("RNN", "LSTM, forget bias 1", "LSTM, chrono")
    tried = [of(outcomes, "latch", length, name) for name in asked]
    rnn, biased, chrono = (f"{sum(one.solved_at is not None for one in each)} of {len(each)}" for each in tried)
    return Section(
        "Where an LSTM has no edge",
        (
            paragraph(
                f"*Latch*: the first of {length} numbers says plus or minus, noise follows, the sign is asked for at "
                "the end. One bit for a long time, and a plain RNN can hold it by driving a unit to its limit. So "
                f"many seeds solved it: {rnn} with a plain RNN, {biased} with forget bias 1, {chrono} with chrono. "
                "A gate alone is no advantage, it depends on where it begins. Hochreiter & Schmidhuber said of such "
                "tasks in 1997 that guessing weights at random solves them faster than any published method."
            ),
            table(["latch", "solved by seeds (steps, middle)"], latch),
            paragraph(
                f"*Text, for a short while*: after {steps} steps of training on Shakespeare, bits per character on "
                "text that was held out: as many yes-or-no questions as the next letter costs on average (letter "
                "frequencies alone leave 4.8). What can be learned in "
                "so short a time is which letter follows which, and that needs no long memory. Gates pay "
                "when training goes on for longer and the text is large."
            ),
            table(["text", "bits per character, mean of the seeds", "from, to"], text),
        ),
    )


def tiny(value: float) -> str:
    return f"{value:.2g}" if value >= 0.01 else f"{value:.0e}"
