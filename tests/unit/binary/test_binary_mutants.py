"""Mutated components: every one is either understood or refused with a stated error."""

import random
from itertools import pairwise

import pytest

from cloche.binary.plan import memory_plan
from cloche.binary.probe import add_probe
from cloche.binary.sections import COMPONENT_PREAMBLE, component_sections
from cloche.binary.survey import survey
from cloche.errors import ContractError, LimitError
from cloche.model import MIB
from support.binary_wat import NESTED, ONE_MEMORY, STRINGS_WIT, TWO_MEMORIES, parse, wit_component

MUTANTS_PER_SEED = 500
CODES = {
    "understood",
    "limit.memory",
    "component.malformed",
    "component.not-wasm",
    "component.core-module",
    "component.too-large",
}


def _mutate(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        position = chance.randrange(len(out))
        match chance.randrange(6):
            case 0:
                out[position] ^= 1 << chance.randrange(8)
            case 1:
                out[position] = chance.choice((0x00, 0x01, 0x7F, 0x80, 0xFF))
            case 2:
                out[position : position + chance.randint(1, 8)] = b""
            case 3:
                out[position:position] = chance.randbytes(chance.randint(1, 8))
            case 4:
                end = position + chance.randint(1, 40)
                out[position:position] = out[position:end]
            case _:
                out[position : position + 5] = b"\xff\xff\xff\xff\x0f"
        if len(out) < 2:
            break
    return bytes(out)


def _shuffle_sections(data: bytes, chance: random.Random) -> bytes:
    starts = [8, *(section.end for section in component_sections(data))]
    parts = [data[a:b] for a, b in pairwise(starts)]
    chance.shuffle(parts)
    return COMPONENT_PREAMBLE + b"".join(parts[: chance.randint(1, len(parts))])


def _outcome(data: bytes) -> str:
    try:
        memory_plan(survey(data), 16 * MIB)
    except (ContractError, LimitError) as error:
        return error.code
    return "understood"


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_understood_or_refused(seed: int) -> None:
    """No mutant raises anything but a stated refusal, and a probe is a pure addition."""
    chance = random.Random(seed)
    originals = [parse(ONE_MEMORY), parse(TWO_MEMORIES), parse(NESTED), wit_component(STRINGS_WIT, "both")]
    outcomes: set[str] = set()
    for number in range(MUTANTS_PER_SEED):
        original = chance.choice(originals)
        data = _shuffle_sections(original, chance) if number % 10 == 0 else _mutate(original, chance)
        probed = add_probe(data)
        assert probed is None or probed.bytes.startswith(data)
        outcomes.add(_outcome(data))
    assert {"understood", "component.malformed"} <= outcomes <= CODES
