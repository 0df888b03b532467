"""What the compiled loops need of LLVM beyond Numba: numbers side by side in a vector, stores past the cache, bfloat16.

Numba's own loops become vector instructions only where few arrays are involved. bfloat16, which numpy does not have,
stands here as uint16 with the same bits; it is computed with in float32.
"""

from collections.abc import Callable
from functools import partialmethod
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

LINE = 64
"""Bytes of a line of the cache, and of what is written past it at once."""


# ---- bfloat16 --------------------------------------------------------------------------------------------------------


def _widened(builder: Any, value: Any) -> Any:
    """Bfloat16 as float32, one number or a vector of LLVM."""
    bits = builder.shl(builder.zext(value, _shaped(ir.IntType(32), value)), _equal(value, 32, 16))
    return builder.bitcast(bits, _shaped(ir.FloatType(), value))


def _narrowed(builder: Any, value: Any) -> Any:
    """Float32 as the nearest bfloat16, ties to even; one number or a vector of LLVM."""
    bits = builder.bitcast(value, _shaped(ir.IntType(32), value))
    odd = builder.and_(builder.lshr(bits, _equal(value, 32, 16)), _equal(value, 32, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, _equal(value, 32, 0x7FFF))), _equal(value, 32, 16))
    short = builder.trunc(rounded, _shaped(ir.IntType(16), value))
    return builder.select(builder.fcmp_unordered("uno", value, value), _equal(value, 16, 0x7FC0), short)


def _shaped(kind: Any, like: Any) -> Any:
    """A vector type of as many as `like` has, or the type itself."""
    return ir.VectorType(kind, like.type.count) if isinstance(like.type, ir.VectorType) else kind


def _equal(like: Any, bits: int, number: int) -> Any:
    """The same integer in each place of `like`."""
    kind = _shaped(ir.IntType(bits), like)
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


# ---- numbers side by side --------------------------------------------------------------------------------------------


class Numbers:
    """Arithmetic on numbers side by side in a vector of LLVM."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _combined(self, operation: str, other: "Numbers") -> "Numbers":
        return Numbers(self.builder, getattr(self.builder, operation)(self.value, other.value))

    __add__ = partialmethod(_combined, "fadd")
    __sub__ = partialmethod(_combined, "fsub")
    __mul__ = partialmethod(_combined, "fmul")
    __truediv__ = partialmethod(_combined, "fdiv")

    def times_plus(self, factor: "Numbers", summand: "Numbers") -> "Numbers":
        """Self * factor + summand, rounded once."""
        return self.apply("fma", factor, summand)

    def apply(self, function: str, *others: "Numbers") -> "Numbers":
        """A function of LLVM's for each: sqrt, fabs, fma."""
        kind, values = self.value.type, [numbers.value for numbers in (self, *others)]
        return Numbers(self.builder, _call(self.builder, f"llvm.{function}.{_name(kind)}", kind, values))

    def zeros(self) -> "Numbers":
        """As many."""
        return Numbers(self.builder, ir.Constant(self.value.type, None))


class Elements:
    """Those of a tensor from an address on, several at once; bfloat16 is widened and rounded on the way.

    An element is named by its number. They need not be aligned in memory.
    """

    def __init__(self, context: Any, builder: Any, kind: Any, address: Any) -> None:
        self.builder, self._half, self._address = builder, kind == types.uint16, address
        self._kind = context.get_value_type(kind)
        self._size = context.get_abi_sizeof(self._kind)

    def at(self, index: Any) -> Any:
        """The address of an element."""
        return self.builder.add(self._address, self.builder.mul(index, index.type(self._size)))

    def load(self, index: Any, count: int) -> Numbers:
        """So many from one on."""
        pointer = self.builder.inttoptr(self.at(index), ir.VectorType(self._kind, count).as_pointer())
        value = self.builder.load(pointer, align=self._size)
        return Numbers(self.builder, _widened(self.builder, value) if self._half else value)

    def store(self, numbers: Numbers, index: Any, past_cache: bool = False) -> None:
        """`past_cache`: the line that is overwritten is not read first; it begins at that element."""
        value = self._kept(numbers)
        pointer = self.builder.inttoptr(self.at(index), value.type.as_pointer())
        store = self.builder.store(value, pointer, align=LINE if past_cache else self._size)
        if past_cache:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.IntType(32)(1)]))

    def rounded(self, numbers: Numbers) -> Numbers:
        """What a load would give after a store."""
        return Numbers(self.builder, _widened(self.builder, self._kept(numbers))) if self._half else numbers

    def prefetch(self, index: Any, count: int) -> None:
        """Let so many from one on come into the cache; they need not exist."""
        to_read, keep, data = (ir.IntType(32)(number) for number in (0, 3, 1))
        for line in range(0, count * self._size, LINE):
            place = self.builder.add(self.at(index), ir.IntType(64)(line))
            pointer = self.builder.inttoptr(place, ir.IntType(8).as_pointer())
            _call(self.builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, to_read, keep, data])

    def before_line(self) -> Any:
        """How many elements there are before the first line of the cache that begins with an element."""
        word = self._address.type
        to_line = self.builder.and_(self.builder.neg(self._address), word(LINE - 1))
        return self.builder.udiv(to_line, word(self._size))

    def _kept(self, numbers: Numbers) -> Any:
        return _narrowed(self.builder, numbers.value) if self._half else numbers.value


def computed(number: Any) -> Any:
    """The type in which numbers of a type are computed with."""
    return types.float32 if number == types.uint16 else number


def spread(builder: Any, number: Any, count: int) -> Numbers:
    """The same number in each place."""
    nothing = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    one = builder.insert_element(nothing, number, ir.IntType(32)(0))
    first = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return Numbers(builder, builder.shuffle_vector(one, nothing, first))


class Sum:
    """A sum in float64 of what is added: in its own precision where it is `count` numbers at once.

    Partial sums are added in any order.
    """

    def __init__(self, context: Any, builder: Any, number: Any, count: int) -> None:
        self._builder, kind = builder, ir.VectorType(context.get_value_type(number), count)
        self._line = cgutils.alloca_once_value(builder, ir.Constant(kind, [0.0] * count))
        self._rest = cgutils.alloca_once_value(builder, ir.DoubleType()(0.0))

    def add(self, numbers: Numbers) -> None:
        """Those of a line, or of the rest."""
        line = Numbers(self._builder, self._builder.load(self._line))
        if numbers.value.type == line.value.type:
            self._builder.store((line + numbers).value, self._line)
        else:
            rest = self._builder.fadd(self._builder.load(self._rest), self._total(numbers.value))
            self._builder.store(rest, self._rest)

    def total(self) -> Any:
        """What has been added."""
        return self._builder.fadd(self._builder.load(self._rest), self._total(self._builder.load(self._line)))

    def _total(self, value: Any) -> Any:
        kind, double = value.type, ir.DoubleType()
        name, zero = f"llvm.vector.reduce.fadd.{_name(kind)}", ir.Constant(kind.element, 0.0)
        total = _call(self._builder, name, kind.element, [zero, value], fastmath=("reassoc",))
        return total if kind.element == double else self._builder.fpext(total, double)


def for_each_line(builder: Any, length: Any, count: int, treat: Callable[[Any, int], None]) -> None:
    """Let `treat(index, count)` emit code for that many elements from each index on, and for the rest.

    The rest is halves, quarters, ... of a line: stores under a mask would hold up the loads of the next row.
    """
    index, whole = length.type, builder.and_(length, length.type(-count))
    with cgutils.for_range_slice(builder, index(0), whole, index(count)) as (start, _):
        treat(start, count)
    while count := count // 2:
        with builder.if_then(builder.icmp_signed("!=", builder.and_(length, index(count)), index(0))):
            treat(builder.and_(length, index(-2 * count)), count)


def _name(kind: Any) -> str:
    """Of a vector type in the names of LLVM's functions."""
    return f"v{kind.count}{kind.element.intrinsic_name}"


def _call(builder: Any, name: str, result: Any, arguments: Any, **options: Any) -> Any:
    """Call a function of LLVM's."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)
