"""Loops over consecutive elements of a row, in vector instructions, as parts of the loops in `numba_kernels`.

Each takes how many elements there are, the number of the first one, and of each tensor its address and dtype, None for
no tensor.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ftp_cl.projection.backends.numba_lanes import LINE, Elements, Numbers, Sum, computed, for_each_line, spread

LONG = 128
"""Elements from which on it pays to write a row past the cache."""


class _Stretch:
    """What the code of such a loop has at hand.

    Attributes:
        tensors: the elements of each, from the first one on.
        length: how many there are.
        count: how many are treated at once: a line of the last tensor.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self._context, self._builder, self.length = context, builder, arguments[0]
        kinds: list[Any] = [None if isinstance(kind, types.NoneType) else kind for kind in signature.args[3]]
        self.tensors: list[Any] = []
        for kind, address in zip(kinds, cgutils.unpack_tuple(builder, arguments[2]), strict=True):
            whole = kind and Elements(context, builder, kind, address)
            self.tensors.append(whole and Elements(context, builder, kind, whole.at(arguments[1])))
        self._number = computed(kinds[0])
        self.count = LINE * 8 // (kinds[-1] or kinds[0]).bitwidth

    def sums(self, number: int) -> list[Sum]:
        """So many, of what is treated in `each`."""
        return [Sum(self._context, self._builder, self._number, self.count) for _ in range(number)]

    def spread(self, number: Any, count: int) -> Numbers:
        """A float64 as it is computed with, in each of so many places."""
        return spread(self._builder, self._context.cast(self._builder, number, types.float64, self._number), count)

    def each(self, treat: Callable[[Any, int], None]) -> None:
        """See `for_each_line`."""
        for_each_line(self._builder, self.length, self.count, treat)


@intrinsic
def dot(typing: Any, length: Any, first: Any, addresses: Any, kinds: Any) -> Any:
    """<g, c>."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stretch = _Stretch(context, builder, signature, arguments)
        (g, c), (dot,) = stretch.tensors, stretch.sums(1)
        stretch.each(lambda i, count: dot.add(g.load(i, count) * c.load(i, count)))
        return dot.total()

    return types.float64(length, first, addresses, kinds), generate


@intrinsic
def distance(typing: Any, length: Any, first: Any, addresses: Any, kinds: Any) -> Any:
    """The sum of |w - a|, and <g, w - a>; of w, a, g."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stretch = _Stretch(context, builder, signature, arguments)
        (w, a, g), (distance, dot) = stretch.tensors, stretch.sums(2)

        def add(i: Any, count: int) -> None:
            change = w.rounded(w.load(i, count) - a.load(i, count))
            distance.add(change.apply("fabs"))
            dot.add(g.load(i, count) * change)

        stretch.each(add)
        return context.make_tuple(builder, signature.return_type, [distance.total(), dot.total()])

    return types.UniTuple(types.float64, 2)(length, first, addresses, kinds), generate


@intrinsic
def place(typing: Any, length: Any, first: Any, addresses: Any, kinds: Any, ratio: Any, ahead: Any) -> Any:
    """Keep c = w - a for the next step, and make w = a + ratio c if the ratio is below 1; of w, a, c.

    A ratio of NaN keeps a change of 0. Many elements do not give c a place in the cache: its old values were needed
    before, its new ones are in the next step. Meanwhile w and a, `ahead` elements further on, come into the cache.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stretch = _Stretch(context, builder, signature, arguments)
        (w, a, c), (ratio, ahead) = stretch.tensors, arguments[4:]
        finite = builder.fcmp_ordered("ord", ratio, ratio)

        def place(start: Any, end: Any, shorten: bool, past_cache: bool) -> None:
            def few(i: Any, count: int) -> None:
                i = builder.add(start, i)
                if past_cache:
                    w.prefetch(builder.add(i, ahead), count)
                    a.prefetch(builder.add(i, ahead), count)
                anchor = a.load(i, count)
                change = w.rounded(w.load(i, count) - anchor)
                if shorten:
                    w.store(change.times_plus(stretch.spread(ratio, count), anchor), i)
                if c is not None:
                    kept = builder.select(finite, change.value, change.zeros().value)
                    c.store(Numbers(builder, kept), i, past_cache and count == stretch.count)

            for_each_line(builder, builder.sub(end, start), stretch.count, few)

        with builder.if_else(builder.fcmp_ordered("<", ratio, ratio.type(1.0))) as branches:
            for shorten, branch in zip((True, False), branches, strict=True):
                with branch:
                    end = start = stretch.length
                    if c is not None:
                        is_long = builder.icmp_signed(">=", end, end.type(LONG))
                        start = builder.select(is_long, c.before_line(), end)
                        place(start, end, shorten, past_cache=True)
                    if c is not None or shorten:
                        place(end.type(0), start, shorten, past_cache=False)
        return context.get_dummy_value()

    return types.void(length, first, addresses, kinds, ratio, ahead), generate


@intrinsic
def adam(typing: Any, length: Any, first: Any, addresses: Any, kinds: Any, kept: Any, hyper: Any) -> Any:
    """AdamW's step; of w, a, g, exp_avg, exp_avg_sq. See `adam_rows` for `hyper`.

    Returns the sum of |w - a| and, without a change that is kept, those of |w - a| and g (w - a) before the step. Each
    operation is rounded as in the vectors of torch's fused AdamW on CPUs that multiply and add at once, for beta1 above
    0.5: below, torch interpolates from the gradient's side, and behind the last whole vector it rounds otherwise.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stretch = _Stretch(context, builder, signature, arguments)
        tensors, sums = stretch.tensors, stretch.sums(3)
        numbers = cgutils.unpack_tuple(builder, arguments[5])

        def step(i: Any, count: int) -> None:
            w, a, g, m, v = (tensor.load(i, count) for tensor in tensors)
            keep, new1, old2, new2, rate, root, eps, sign = (stretch.spread(number, count) for number in numbers)
            if isinstance(kept, types.NoneType):
                sums[1].add((w - a).apply("fabs"))
                sums[2].add(g * (w - a))
            g = sign * g
            m = (g - m).times_plus(new1, m)
            v = g.times_plus(new2 * g, old2 * v)
            decayed = keep.times_plus(w, w.zeros())  # a mere product would be rounded together with the difference
            w = tensors[0].rounded(decayed - rate * m / (v.apply("sqrt") / root + eps))
            sums[0].add(tensors[0].rounded(w - a).apply("fabs"))
            for tensor, new in zip((tensors[0], *tensors[3:]), (w, m, v), strict=True):
                tensor.store(new, i)

        stretch.each(step)
        return context.make_tuple(builder, signature.return_type, [each.total() for each in sums])

    return types.UniTuple(types.float64, 3)(length, first, addresses, kinds, kept, hyper), generate
