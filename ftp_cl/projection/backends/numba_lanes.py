"""What the compiled loops need of LLVM beyond Numba: numbers side by side in a vector, stores past the cache, bfloat16.

Numba's own loops become vector instructions only where few arrays are involved. bfloat16, which numpy does not have,
stands here as uint16 with the same bits; it is computed with in float32.
"""

from functools import partialmethod
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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


@intrinsic
def widen(typing_context: Any, number: Any) -> Any:
    """A number as it is computed with."""
    half = number == types.uint16

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _widened(builder, arguments[0]) if half else arguments[0]

    return (types.float32 if half else number)(number), generate


@intrinsic
def narrow(typing_context: Any, number: Any, like: Any) -> Any:
    """A number as an array keeps it whose elements are of the type of `like`."""
    half = like == types.uint16

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _narrowed(builder, arguments[0]) if half else arguments[0]

    return (types.uint16 if half else number)(number, like), generate


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
        name = f"llvm.{function}.v{kind.count}{kind.element.intrinsic_name}"
        module = self.builder.module
        declared = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * len(values)), name)
        return Numbers(self.builder, self.builder.call(declared, values))

    def total(self, nothing: "Numbers") -> Any:
        """Their sum, taken in any order; `nothing` are as many zeros."""
        kind, zero = self.value.type, self.builder.extract_element(nothing.value, ir.IntType(32)(0))
        name = f"llvm.vector.reduce.fadd.v{kind.count}{kind.element.intrinsic_name}"
        module = self.builder.module
        declared = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(kind.element, [kind.element, kind]), name
        )
        return self.builder.call(declared, [zero, self.value], fastmath=("reassoc",))


class Lanes:
    """Loads and stores `count` numbers of one type at once; bfloat16 is widened and rounded on the way."""

    def __init__(self, context: Any, builder: Any, number: Any, count: int) -> None:
        self.builder, self.count, self.half = builder, count, number == types.uint16
        self.kind = ir.VectorType(context.get_value_type(number), count)
        self.size = context.get_abi_sizeof(self.kind.element)

    def pointer(self, address: Any) -> Any:
        """Where that many numbers are."""
        return self.builder.inttoptr(address, self.kind.as_pointer())

    def load(self, pointer: Any) -> Numbers:
        """They need not be aligned."""
        value = self.builder.load(pointer, align=self.size)
        return Numbers(self.builder, _widened(self.builder, value) if self.half else value)

    def store(self, numbers: Numbers, pointer: Any) -> None:
        """They need not be aligned."""
        self.builder.store(self._kept(numbers), pointer, align=self.size)

    def store_past_cache(self, numbers: Numbers, pointer: Any) -> None:
        """The line that is overwritten is not read first; it begins here."""
        store = self.builder.store(self._kept(numbers), pointer, align=LINE)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.IntType(32)(1)]))

    def rounded(self, numbers: Numbers) -> Numbers:
        """What a load would give after a store."""
        return Numbers(self.builder, _widened(self.builder, self._kept(numbers))) if self.half else numbers

    def _kept(self, numbers: Numbers) -> Any:
        return _narrowed(self.builder, numbers.value) if self.half else numbers.value

    def prefetch(self, address: Any) -> None:
        """Let as many numbers from an address on come into the cache; the address need not exist."""
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        to_read, keep, data = word(0), word(3), word(1)
        for line in range(0, self.count * self.size, LINE):
            place = self.builder.inttoptr(self.builder.add(address, ir.IntType(64)(line)), byte)
            self.builder.call(function, [place, to_read, keep, data])

    def spread(self, number: Any) -> Numbers:
        """The same number in each place; it is not rounded."""
        nothing = ir.Constant(ir.VectorType(number.type, self.count), ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.IntType(32)(0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), self.count), [0] * self.count)
        return Numbers(self.builder, self.builder.shuffle_vector(one, nothing, first))
