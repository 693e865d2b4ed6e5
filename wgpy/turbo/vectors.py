"""The inner loops of a train as vector operations: Python that emits LLVM instructions.

numba compiles loops over arrays well, but cannot keep sixteen vectors in registers for
twenty rounds.  So the loops of ChaCha20-Poly1305 (RFC 8439) and of the Internet checksum
(RFC 1071) are not compiled from Python loops: the functions here emit LLVM instructions on
vectors (llvmlite), and LLVM selects the instructions of the processor (AVX-512, AVX2, SSE2,
NEON).  The cipher uses additions, exclusive ors, rotations, multiplications and shifts: no
branch and no address depends on a secret.

Addresses are plain integers.  The caller has checked every bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK: Final = 64
"""Bytes of a ChaCha20 block."""
BLOCKS: Final = 16
"""ChaCha20 blocks computed at a time, one in each lane."""
LANES: Final = 8
"""Poly1305 sums computed at a time."""

_SIGMA: Final = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""``expand 32-byte k`` (RFC 8439 §2.3)."""
_QUARTER_ROUNDS: Final = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_DOUBLE_ROUNDS: Final = 10

_BYTE, _WORD, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORDS = ir.VectorType(_WORD, BLOCKS)
_LONGS = ir.VectorType(_LONG, LANES)
_PAIR = ir.VectorType(_LONG, 2)
_EIGHT = ir.VectorType(_LONG, 8)

Value = Any
Builder = Any


def primitive(emitter: Callable[..., Any]) -> Any:
    """A function for compiled code, made of the instructions that `emitter` emits."""
    return intrinsic(emitter)


def _load(builder: Builder, address: Value, kind: ir.Type, offset: int = 0) -> Value:
    """Load from `offset` bytes behind an address, aligned or not."""
    if offset:
        address = builder.add(address, ir.Constant(_LONG, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: Builder, value: Value, address: Value, offset: int = 0) -> None:
    if offset:
        address = builder.add(address, ir.Constant(_LONG, offset))
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _same(kind: ir.VectorType, number: int) -> ir.Constant:
    """A vector with `number` in every lane."""
    return ir.Constant(kind, [number] * kind.count)


def _spread(builder: Builder, scalar: Value, kind: ir.VectorType) -> Value:
    """A scalar in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _WORD(0))
    return _shuffle(builder, one, one, [0] * kind.count)


def _shuffle(builder: Builder, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    mask = ir.Constant(ir.VectorType(_WORD, len(lanes)), list(lanes))
    return builder.shuffle_vector(a, b, mask)


def _repeat(
    builder: Builder, times: Value, values: Sequence[Value],
    body: Callable[[Value, list[Value]], list[Value]],
) -> list[Value]:  # fmt: skip
    """A loop that carries `values` in registers: they enter `body`, its results go on.

    `body` also gets the number of the round; `times` (64 bit) may be zero.
    """
    before, loop = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    some = builder.icmp_signed(">", times, _LONG(0))
    builder.cbranch(some, loop, after)
    builder.position_at_end(loop)
    number = builder.phi(_LONG)
    carried = [builder.phi(value.type) for value in values]
    results = body(number, list(carried))
    following = builder.add(number, _LONG(1))
    end = builder.block
    builder.cbranch(builder.icmp_signed("<", following, times), loop, after)
    number.add_incoming(_LONG(0), before)
    number.add_incoming(following, end)
    for phi, value, result in zip(carried, values, results, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(result, end)
    builder.position_at_end(after)
    final = [builder.phi(value.type) for value in values]
    for phi, value, result in zip(final, values, results, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(result, end)
    return final


# ChaCha20 (RFC 8439 §2.3), one block in each lane.


def _quarter_round(builder: Builder, rotate: Value, state: list[Value], abcd: Any) -> None:
    """RFC 8439 §2.1."""
    a, b, c, d = abcd
    for x, y, z, count in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = builder.add(state[x], state[y])
        mixed = builder.xor(state[z], state[x])
        state[z] = builder.call(rotate, (mixed, mixed, _same(_WORDS, count)))


def _transposed(builder: Builder, rows: list[Value]) -> list[Value]:
    """Row i, lane j becomes row j, lane i: in each step one bit of i and j changes places."""
    rows = list(rows)
    lanes = range(BLOCKS)
    for bit in (1, 2, 4, 8):
        low = [j if not j & bit else BLOCKS + j - bit for j in lanes]
        high = [j + bit if not j & bit else BLOCKS + j for j in lanes]
        for i in (i for i in lanes if not i & bit):
            a, b = rows[i], rows[i | bit]
            rows[i] = _shuffle(builder, a, b, low)
            rows[i | bit] = _shuffle(builder, a, b, high)
    return rows


@primitive
def keystream(typing: Any, key: Any, lanes: Any, out: Any) -> Any:  # noqa: ARG001
    """Sixteen blocks to `out`, one behind the other.

    `key` is the address of 32 bytes, `lanes` that of three rows of sixteen 32-bit words:
    block numbers, and the two halves of the counters.  The nonce is WireGuard's: four
    zero bytes and the counter (§5.4.6).
    """

    def emit(_context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        key, lanes, out = args
        row = BLOCKS * 4
        start = [_same(_WORDS, word) for word in _SIGMA]
        start += [_spread(builder, _load(builder, key, _WORD, 4 * i), _WORDS) for i in range(8)]
        number, low, high = (_load(builder, lanes, _WORDS, row * i) for i in range(3))
        start += [number, _same(_WORDS, 0), low, high]
        shape = ir.FunctionType(_WORDS, [_WORDS] * 3)
        rotate = cgutils.get_or_insert_function(builder.module, shape, "llvm.fshl.v16i32")

        def double_round(_: Value, state: list[Value]) -> list[Value]:
            for abcd in _QUARTER_ROUNDS:
                _quarter_round(builder, rotate, state, abcd)
            return state

        state = _repeat(builder, _LONG(_DOUBLE_ROUNDS), start, double_round)
        words = [builder.add(a, b) for a, b in zip(state, start, strict=True)]
        for lane, block in enumerate(_transposed(builder, words)):
            _store(builder, block, out, BLOCK * lane)
        return _context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


# Poly1305 (RFC 8439 §2.5), one message in each lane, in limbs of 26 bits.

_LIMB: Final = (1 << 26) - 1
_HALF: Final = (1 << 32) - 1


def _products(builder: Builder, h: list[Value], r: list[Value]) -> list[Value]:
    """h · r modulo 2^130 - 5, limbs not carried: what leaves at the top returns five-fold."""
    five = [builder.mul(limb, _same(_LONGS, 5)) for limb in r]
    half = _same(_LONGS, _HALF)  # Says that 32 × 32 bits are multiplied.
    h, r, five = ([builder.and_(limb, half) for limb in limbs] for limbs in (h, r, five))
    sums = []
    for i in range(5):
        terms = [builder.mul(h[j], r[i - j] if j <= i else five[5 + i - j]) for j in range(5)]
        while len(terms) > 1:
            terms.append(builder.add(terms.pop(0), terms.pop(0)))
        sums.append(terms[0])
    return sums


def _carried(builder: Builder, d: list[Value]) -> list[Value]:
    """Carry, so that limbs can be multiplied again (26 bits, the second slightly more)."""
    d, shift, mask = list(d), _same(_LONGS, 26), _same(_LONGS, _LIMB)

    # Two chains side by side.
    for source in (0, 3, 1, 4, 2, 0, 3):
        over = builder.lshr(d[source], shift)
        d[source] = builder.and_(d[source], mask)
        if source == 4:
            over = builder.mul(over, _same(_LONGS, 5))
        target = (source + 1) % 5
        d[target] = builder.add(d[target], over)
    return d


def _message_limbs(builder: Builder, low: Value, high: Value) -> list[Value]:
    """Sixteen bytes of each message, and the bit that is set above them (§2.5)."""
    mask = _same(_LONGS, _LIMB)

    def right(value: Value, count: int) -> Value:
        return builder.lshr(value, _same(_LONGS, count))

    middle = builder.or_(right(low, 52), builder.shl(high, _same(_LONGS, 12)))
    limbs = [low, right(low, 26), middle, right(high, 14)]
    top = builder.or_(right(high, 40), _same(_LONGS, 1 << 24))
    return [*(builder.and_(limb, mask) for limb in limbs), top]


def _gathered(builder: Builder, addresses: list[Value], offset: Value) -> tuple[Value, Value]:
    """The sixteen bytes at `offset` of each message: first halves, second halves."""
    pairs = [_load(builder, builder.add(a, offset), _PAIR) for a in addresses]
    while len(pairs) > 2:
        width = range(2 * pairs[0].type.count)
        halves = zip(pairs[::2], pairs[1::2], strict=True)
        pairs = [_shuffle(builder, a, b, width) for a, b in halves]
    a, b = pairs
    even, odd = range(0, 2 * LANES, 2), range(1, 2 * LANES, 2)
    return _shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)


@primitive
def absorb(typing: Any, addresses: Any, blocks: Any, r: Any, h: Any) -> Any:  # noqa: ARG001
    """Add `blocks` × 16 bytes of each of eight messages to their sums.

    `addresses` is the address of eight 64-bit addresses, `r` and `h` those of five rows of
    eight 64-bit limbs; `h` is changed.
    """

    def emit(context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        addresses, blocks, r, h = args
        row = LANES * 8
        starts = [_load(builder, addresses, _LONG, 8 * i) for i in range(LANES)]
        factors = [_load(builder, r, _LONGS, row * i) for i in range(5)]
        sums = [_load(builder, h, _LONGS, row * i) for i in range(5)]

        def block(number: Value, sums: list[Value]) -> list[Value]:
            offset = builder.shl(number, _LONG(4))
            taken = _message_limbs(builder, *_gathered(builder, starts, offset))
            sums = [builder.add(a, b) for a, b in zip(sums, taken, strict=True)]
            return _carried(builder, _products(builder, sums, factors))

        for i, limb in enumerate(_repeat(builder, blocks, sums, block)):
            _store(builder, limb, h, row * i)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), emit


# The Internet checksum.


@primitive
def sum_blocks(typing: Any, address: Any, blocks: Any) -> Any:  # noqa: ARG001
    """The sum of the 32-bit words in `blocks` × 64 bytes, which is that of their 16-bit
    words modulo 65535."""

    def emit(_context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        address, blocks = args
        half, shift = _same(_EIGHT, _HALF), _same(_EIGHT, 32)

        def block(number: Value, sums: list[Value]) -> list[Value]:
            words = _load(builder, builder.add(address, builder.shl(number, _LONG(6))), _EIGHT)
            low, high = builder.and_(words, half), builder.lshr(words, shift)
            return [builder.add(sums[0], low), builder.add(sums[1], high)]

        zero = _same(_EIGHT, 0)
        low, high = _repeat(builder, blocks, [zero, zero], block)
        lanes = builder.add(low, high)
        total = _LONG(0)
        for lane in range(_EIGHT.count):
            total = builder.add(total, builder.extract_element(lanes, _WORD(lane)))
        return total

    return types.uint64(types.intp, types.intp), emit


@primitive
def copy(typing: Any, target: Any, source: Any, size: Any) -> Any:  # noqa: ARG001
    """Copy `size` bytes; source and target do not overlap."""

    def emit(context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(a, _BYTE.as_pointer()) for a in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


# Single bytes and words.


def _loader(kind: ir.Type, result: types.Type) -> Any:
    """Bytes and words widened to 64 bits, as compiled code calculates."""

    def emit(_context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], kind), _LONG)

    return result(types.intp), emit


def _storer(kind: ir.Type, taken: types.Type) -> Any:
    def emit(context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        _store(builder, builder.trunc(args[1], kind), args[0])
        return context.get_dummy_value()

    return types.void(types.intp, taken), emit


@primitive
def load8(typing: Any, address: Any) -> Any:  # noqa: ARG001
    """A byte."""
    return _loader(_BYTE, types.int64)


@primitive
def load32(typing: Any, address: Any) -> Any:  # noqa: ARG001
    """Four bytes, little-endian where the machine is."""
    return _loader(_WORD, types.int64)


@primitive
def load64(typing: Any, address: Any) -> Any:  # noqa: ARG001
    """Eight bytes, little-endian where the machine is; unsigned."""
    return _loader(_LONG, types.uint64)


@primitive
def store8(typing: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """The lowest byte of `value`."""
    return _storer(_BYTE, types.int64)


@primitive
def store64(typing: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Eight bytes."""
    return _storer(_LONG, types.uint64)


@primitive
def xor64(typing: Any, target: Any, source: Any) -> Any:  # noqa: ARG001
    """XOR the 64 bytes at `source` into those at `target`."""
    block = ir.VectorType(_BYTE, BLOCK)

    def emit(context: Any, builder: Builder, _signature: Any, args: Any) -> Any:
        target, source = args
        mixed = builder.xor(_load(builder, target, block), _load(builder, source, block))
        _store(builder, mixed, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit
