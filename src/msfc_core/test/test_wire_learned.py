import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import learned_reference
from learned_reference import formula_arrays
from msfc.wire.learned import EDGE_ARRAYS, LearnedCoder, gaussian_tables
from msfc.wire.packet import PacketError, RefusalReason

SLICES = (1, 2)
ARRAYS = formula_arrays(SLICES)
CODER = LearnedCoder(ARRAYS, SLICES)
WIDE = (12, 12, 12, 12)


def some_code(shape: tuple[int, int, int], seed: int = 0, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def wide_coder() -> LearnedCoder:
    """A coder of the size that models have."""
    return LearnedCoder(formula_arrays(WIDE, 48, 48, 48, 16, 8), WIDE)


codes = st.builds(
    some_code,
    st.tuples(st.just(3), st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.3, 3.0, 300.0, 1e6]),
)


@settings(max_examples=60, deadline=None)
@given(codes, st.sampled_from(CODER.rates))
def test_another_reader_made_from_the_page_reads_the_same(code, rate: int) -> None:
    payload = CODER.write(code, rate)
    CODER.check(payload, code.shape, rate)
    read = CODER.read(payload, code.shape, rate)
    assert read.dtype == np.float32
    expected = learned_reference.decode(ARRAYS, payload, code.shape, rate, SLICES)
    np.testing.assert_array_equal(read, expected)


@settings(max_examples=60, deadline=None)
@given(codes, st.sampled_from(CODER.rates))
def test_what_is_read_is_near_to_what_was_written(code, rate: int) -> None:
    read = CODER.read(CODER.write(code, rate), code.shape, rate)
    gain = np.exp(ARRAYS['log_gain'][rate])[:, None, None]
    inverse = ARRAYS['inverse_gain'][rate][:, None, None]
    offset = ARRAYS['rate_offset'][rate][:, None, None]
    values = (read - offset) / inverse
    wanted = code * gain
    near = np.abs(wanted) < 2000
    # The formula's scales never get so small that a symbol is left out.
    assert np.abs(values - wanted)[near].max(initial=0) <= 0.501


def test_symbols_beyond_their_tables_and_beyond_all_are_written() -> None:
    code = np.zeros((3, 4, 4), np.float32)
    code[0, 0, 0], code[1, 2, 3], code[2, 3, 3] = 1000, -1000, 1e30
    read = CODER.read(CODER.write(code, 0), code.shape, 0)
    gain, inverse = np.exp(ARRAYS['log_gain'][0]), ARRAYS['inverse_gain'][0]
    assert read[0, 0, 0] == pytest.approx(1000 * gain[0] * inverse[0], rel=1e-2)
    assert read[1, 2, 3] == pytest.approx(-1000 * gain[1] * inverse[1], rel=1e-2)
    assert read[2, 3, 3] == pytest.approx(2047 * inverse[2], rel=2e-2)


# Whoever changes these changes the wire format: old and new ends no longer understand each other.
GOLDEN = {
    0: '7b0679e5427280d5',
    3: '56a2ca50aa19ec4c',
    7: 'e3aeaafb2fdfa47c',
}


@pytest.mark.parametrize('rate', GOLDEN)
def test_golden_streams(rate: int) -> None:
    # A ramp, as random numbers may differ between versions of NumPy.
    ramp = (np.arange(48 * 16 * 20) * 2654435761 % 2**32 / 2**29 - 4).astype(np.float32)
    payload = wide_coder().write(ramp.reshape(48, 16, 20), rate)
    assert hashlib.sha256(payload).hexdigest()[:16] == GOLDEN[rate]


SHAPE = (48, 13, 18)
CHILD = """
import hashlib, sys
import numpy as np
from test_wire_learned import SHAPE, some_code, wide_coder
coder, code = wide_coder(), some_code(SHAPE)
payload = coder.write(code, 3)
read = coder.read(payload, SHAPE, 3)
print(hashlib.sha256(payload + read.tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    'settings',
    [
        {'OPENBLAS_NUM_THREADS': '1'},
        {'OPENBLAS_NUM_THREADS': '4'},
        {'OPENBLAS_CORETYPE': 'Prescott', 'OPENBLAS_NUM_THREADS': '1'},
        {'OPENBLAS_CORETYPE': 'Sandybridge', 'OPENBLAS_NUM_THREADS': '3'},
        {'NPY_DISABLE_CPU_FEATURES': 'AVX2 FMA3'},
    ],
    ids=lambda settings: ' '.join(f'{key}={value}' for key, value in settings.items()),
)
def test_threads_and_kernels_change_no_bit(settings: dict[str, str]) -> None:
    """Other instructions and other orders of the sums in every matrix product."""
    code = some_code(SHAPE)
    coder = wide_coder()
    payload = coder.write(code, 3)
    read = coder.read(payload, SHAPE, 3)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *sys.path])
    child = subprocess.run(
        [sys.executable, '-c', CHILD], env={**os.environ, **settings, 'PYTHONPATH': path},
        capture_output=True, text=True, check=True,
    )
    assert child.stdout.split()[-1] == hashlib.sha256(payload + read.tobytes()).hexdigest()


def test_the_coder_needs_no_torch() -> None:
    code = 'import sys, msfc.wire.learned; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_memory_layout_changes_no_bit() -> None:
    code = some_code((3, 7, 6))
    payload = CODER.write(code, 1)
    wider = np.zeros((3, 14, 12), np.float32)
    wider[:, ::2, ::2] = code
    for same in (np.asfortranarray(code), wider[:, ::2, ::2], code[::-1].copy()[::-1]):
        assert CODER.write(same, 1) == payload
    arrays = {name: np.asfortranarray(value) for name, value in ARRAYS.items()}
    assert LearnedCoder(arrays, SLICES).write(code, 1) == payload
    padded = b'x' + payload
    read = CODER.read(payload, code.shape, 1)
    for data in (bytearray(payload), memoryview(padded)[1:], np.frombuffer(payload, np.uint8)):
        np.testing.assert_array_equal(CODER.read(data, code.shape, 1), read)


def test_a_receiver_needs_nothing_of_the_robots_half() -> None:
    arrays = {name: value for name, value in ARRAYS.items() if name not in EDGE_ARRAYS}
    receiver, code = LearnedCoder(arrays, SLICES), some_code((3, 5, 5))
    payload = CODER.write(code, 1)
    expected = CODER.read(payload, code.shape, 1)
    np.testing.assert_array_equal(receiver.read(payload, code.shape, 1), expected)
    with pytest.raises(ValueError, match="without the robot's half"):
        receiver.write(code, 1)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.integers(1, 6), st.integers(1, 6), st.sampled_from((0, 1)))
def test_any_bytes_are_refused_or_give_a_bounded_code(
    data: bytes, height: int, width: int, rate: int
) -> None:
    shape = (3, height, width)
    try:
        CODER.check(data, shape, rate)
        read = CODER.read(data, shape, rate)
    except PacketError:
        return
    # It is a payload then, and the only one of its code.
    assert np.isfinite(read).all()
    assert np.abs(read).max() < 2 * (2047 + 32) + 1


def test_nearly_all_damage_is_seen() -> None:
    coder, shape = wide_coder(), (48, 8, 8)
    payload = coder.write(some_code(shape), 3)
    rng, seen = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(payload)
        damaged[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        try:
            coder.check(damaged, shape, 3)
            coder.read(damaged, shape, 3)
        except PacketError:
            seen += 1
    assert seen >= 57


def test_damage_takes_no_longer_to_read() -> None:
    coder, shape = wide_coder(), (48, 16, 20)
    payload = coder.write(some_code(shape), 7)

    def seconds(data: bytes) -> float:
        start = time.process_time()
        with contextlib.suppress(PacketError):
            coder.read(data, shape, 7)
        return time.process_time() - start

    rng, count = np.random.default_rng(0), len(payload)
    damaged = (b'', b'\xff' * count, rng.bytes(count), payload[: count // 2])
    # By turns, so that a busy machine slows all of them down alike.
    rounds = [[seconds(data) for data in (payload, *damaged)] for _ in range(7)]
    good, *bad = np.min(rounds, axis=0)
    assert max(bad) < 3 * good + 0.01


def test_check_refuses_what_no_code_takes() -> None:
    shape = (3, 4, 4)
    for data, words in ((b'x' * 400, 'at most'), (b'x\0', 'zeros behind')):
        with pytest.raises(PacketError, match=words) as caught:
            CODER.check(data, shape, 0)
        assert caught.value.reason in (
            RefusalReason.BAD_PAYLOAD_LENGTH, RefusalReason.BAD_PAYLOAD
        )


def test_what_cannot_be_written_is_refused() -> None:
    code = some_code((3, 4, 4))
    with pytest.raises(ValueError, match='rate 2 is not one of 0, 1'):
        CODER.write(code, 2)
    _, key = CODER.write_key(code[:, :2], 0)
    for act in (CODER.write, lambda code, *given: CODER.read(b'', code.shape, *given)):
        with pytest.raises(ValueError, match=r'\(3, 4, 4\) cannot refer to one of \(3, 2, 4\)'):
            act(code, 0, key)
    with pytest.raises(ValueError, match='3 channels, not of shape'):
        CODER.write(code[:2], 0)
    code[1, 2, 3] = np.nan
    with pytest.raises(PacketError, match='not finite') as caught:
        CODER.write(code, 0)
    assert caught.value.reason is RefusalReason.NOT_FINITE


def test_tables_are_whole_and_longest_at_their_centre() -> None:
    frequencies, reaches = gaussian_tables()
    assert not frequencies[0].any()
    for row, reach in zip(frequencies[1:], reaches[1:], strict=True):
        assert row.sum() == 2**16
        assert row[: 2 * reach + 1].tolist() == row[: 2 * reach + 1][::-1].tolist()
        assert row[reach] == row.max()
    assert list(reaches[1:]) == sorted(reaches[1:])


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'hidden.0.weight': np.full((5, 4000, 1, 1), 1.9)}, 'sums of the entropy network'),
        ({'update.0.bias': np.ones(8)}, 'without an offset'),
        ({'update.0.weight': np.ones((4, 1, 3, 3)), 'update.0.bias': np.zeros(4)}, 'each slice'),
        ({'output.0.weight': np.zeros((6, 5, 1, 1)), 'output.0.bias': np.zeros(6)}, 'of slices'),
        ({'frequencies': np.zeros((3, 512), int)}, '64 tables'),
        ({'reaches': np.full(64, 300)}, 'shorter than their reaches'),
        ({'key_frequencies': np.zeros((3, 512), int)}, '64 tables'),
        ({'key_weight': np.full((2, 64, 13, 6), 17)}, 'key_weight is not of .* from 0 to 16'),
        ({'key_scale': np.zeros((64, 13, 6))}, r'key_scale is not of shape \(2, 64, 13, 6\)'),
        ({'key_hyper_scale': np.full((2, 2, 6), 64)}, 'key_hyper_scale is not of'),
    ],
)
def test_impossible_models_are_refused(changes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        LearnedCoder({**ARRAYS, **changes}, SLICES)


def test_vectors() -> None:
    path = Path(__file__).parent / 'data' / 'wire_vectors.json'
    for vector in json.loads(path.read_text())['learned']:
        code = np.array(vector['code'], np.float32) / 64
        payload = bytes.fromhex(vector['hex'])
        assert CODER.write(code, vector['rate']) == payload
        read = CODER.read(payload, code.shape, vector['rate'])
        again = learned_reference.decode(ARRAYS, payload, code.shape, vector['rate'], SLICES)
        np.testing.assert_array_equal(read, again)
        words = [f'{word:08x}' for word in read.ravel().view(np.uint32)]
        assert ''.join(words) == vector['ieee754']
