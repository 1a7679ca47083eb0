"""All attacks."""

from bench.attacks.crowds import CROWDS
from bench.attacks.floods import FLOODS
from bench.attacks.frames import FRAMES
from bench.attacks.inference import INFERENCE
from bench.attacks.messages import MESSAGES

ATTACKS = MESSAGES | FLOODS | FRAMES | CROWDS | INFERENCE
