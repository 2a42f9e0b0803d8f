"""Grading of the exercises: call an answer, convert it, compare it with the solution.

An exercise is a table: cases (tuples of arguments) and one function that maps the arguments to the
right answer and to the answers of known mistakes, ``{hint: wrong answer}``. `exercise` makes a
checker of it. What the table cannot express is an `examination`, a function that raises a `Hint`.
"""

import functools
import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from serplib.seeding import named_generator

Table = Callable[..., tuple[Any, dict[str, Any]]]
Checker = Callable[[Callable], None]
# Hint to the wrong answers that it fits, whatever the exercise; a table's own hints come first.
GENERIC: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "The sign is wrong.": lambda x: [-x],
    "That is one number for the whole batch. Wanted one for each.": lambda x: [x.mean(), x.sum()],
    "That is in per cent. Wanted a share.": lambda x: [100 * x],
    "That is a share. Wanted per cent.": lambda x: [x / 100],
    "That is the complement: 1 minus the answer.": lambda x: [1 - x],
    "You rounded.": lambda x: [x.floor(), x.ceil(), *(x.round(decimals=n) for n in range(4))],
    "That is in bits, base 2. Wanted nats: the natural logarithm.": lambda x: [x / math.log(2)],
    "One too many, or one too few.": lambda x: [x + 1, x - 1],
    "A factor 2 is missing, or there is one too many.": lambda x: [x / 2, 2 * x],
    "Everything in your answer is 0.": lambda x: [0 * x],
    "The axes of your answer are exchanged.": lambda x: [x.mT] if x.ndim > 1 else [],
}
NAMED = ("__module__", "__name__", "__qualname__", "__doc__")
TOLERANCE = 2e-5  # of the largest magnitude: round-off of float32 in another order of operations


class Hint(Exception):
    """What is wrong with an answer, in words for the learner."""


class _StillOpen(Exception):
    """The function is the stub."""


def exercise(cases: Iterable[tuple] | Callable[[], Iterable[tuple]], **rules) -> Callable:
    """Make a checker of a table.

    Args:
        cases: tuples of arguments, or a function that returns them.
        rules: see `grade`.
    """

    def decorate(table: Table) -> Checker:
        def examine(function: Callable) -> None:
            grade(function, list(cases() if callable(cases) else cases), table, **rules)

        return examination(functools.update_wrapper(examine, table, NAMED))

    return decorate


def examination(examine: Checker) -> Checker:
    """Make a checker, which prints the result, of an examination, which raises a `Hint`."""

    def checker(function: Callable) -> None:
        result = "right!"
        try:
            if not callable(function):
                raise Hint(f"Pass the function itself, without calling it; got {type(function)}.")
            examine(function)
        except _StillOpen:
            result = (
                "still open. Put your answer where the stub raises; the notebook runs on meanwhile."
            )
        except Hint as hint:
            result = f"not yet. {hint}"
        print(f"{examine.__name__}: {result}")

    functools.update_wrapper(checker, examine, NAMED)
    del checker.__wrapped__  # type: ignore[attr-defined]  # help() shows checker(function)
    return checker


def grade(
    function: Callable,
    cases: Sequence[tuple],
    table: Table,
    *,
    shape: str = "one number",
    advice: str = "",
    not_finite: str = "Your answer holds NaN or infinity.",
    mask: bool = False,
    trains: Collection[str] = (),
    may_change: Collection[str] = (),
    forbids: Mapping[str, str] = {},
    no_loop: str = "",
) -> None:
    """Call a function on every case and compare its answers with a table.

    A known mistake is diagnosed if its wrong answer is the function's answer in every case.

    Args:
        table: maps the arguments to the right answer and to ``{hint: wrong answer}``, or a list of
            wrong answers that share the hint. Its parameters name the arguments in hints.
        shape: of the answer, in words.
        advice: ends the hint for an unknown mistake.
        not_finite: hint for NaN or infinity.
        mask: the answer has dtype bool.
        trains: arguments to which the answer must send the same gradient as the solution. A wrong
            answer of right value whose gradient is the function's is a diagnosis, too.
        may_change: arguments that may be changed in place.
        forbids: name of a function of PyTorch or of an ATen operation, or ``"autograd"``, to the
            hint for its use.
        no_loop: hint for a Python loop whose length differs between the cases.

    Raises:
        Hint: the answer is not right.
    """
    names = list(inspect.signature(table).parameters)
    answers: list[Tensor] = []
    lengths: set[int] = set()
    stopped: Hint | None = None
    for case in cases:
        seen, counter = Operations(), python_steps(function) if no_loop else nullcontext([0])
        with seen if forbids else nullcontext(), counter as steps:
            try:
                answer = call(function, *copied(case), names=names, may_change=may_change)
                answers.append(to_tensor(answer, shape))
            except Hint as error:
                stopped = error
        if "saved tensor hooks" in str(stopped):  # torch.func.grad refuses those of `Operations`
            seen.names.add("autograd")
        for operation in seen.names.intersection(forbids):
            raise Hint(forbids[operation])
        if stopped:
            break
        lengths.add(steps[0])
    tables = [table(*case) for case in cases]
    rights = [to_tensor(right) for right, _ in tables]
    answers = [
        a.reshape(()) if r.ndim == 0 and a.numel() == 1 else a for a, r in zip(answers, rights)
    ]
    _diagnose(answers, rights, [mistakes for _, mistakes in tables])
    for case, answer, right in zip(cases, answers, rights):
        if answer.shape != right.shape:
            sizes = f"{tuple(answer.shape)}, wanted {tuple(right.shape)}, {shape}"
            raise Hint(f"The shape is {sizes}.{_given(names, case)}")
        if not answer.isfinite().all():
            raise Hint(not_finite)
        if not close(answer, right):
            raise Hint(f"{_difference(answer, right)}{_given(names, case)} {advice}".rstrip())
    if stopped:  # the cases before were right
        end = "" if str(stopped).endswith((".", "?")) else "."
        raise Hint(f"{stopped}{end}{_given(names, cases[len(answers)])}")
    if mask and any(answer.dtype != torch.bool for answer in answers):
        raise Hint(
            f"The values are right, the dtype is {answers[0].dtype}. A mask is bool: as an index, "
            "0 and 1 would pick rows 0 and 1."
        )
    if len(lengths) > 1:
        raise Hint(no_loop)
    for case in cases if trains else ():
        _compare_gradients(function, case, table, names, trains, shape)


def _diagnose(answers: list[Tensor], rights: list[Tensor], tables: list[dict[str, Any]]) -> None:
    """Raise the hint of the first mistake that gives these answers in all cases."""
    known = [mistakes | _generic(right) for mistakes, right in zip(tables, rights)]
    for hint in known[0]:
        for wrongs in _attempts([mistakes[hint] for mistakes in known]):
            # A mistake may overflow: compare where the answer is finite.
            tried = [t for t in zip(answers, wrongs, rights) if t[0].isfinite().all()]
            if all(close(answer, wrong) for answer, wrong, _ in tried):
                if not all(close(wrong, right) for _, wrong, right in tried):
                    raise Hint(hint)


def call(
    function: Callable, *arguments, names: Sequence[str] = (), may_change: Collection[str] = ()
) -> Any:
    """Return the answer of a function that leaves its arguments as they are.

    Raises:
        Hint: the function raised an error, changed an argument in place, or returned None.
    """
    before = copied(arguments)
    try:
        answer = function(*arguments)
    except (Hint, _StillOpen):  # of an examination that wraps the learner's function
        raise
    except Exception as error:
        name = type(error).__name__
        if name == "NotImplementedError" and not error.args:  # the stub's; PyTorch's have a text
            raise _StillOpen from None
        raise Hint(f"Your function stopped with {name}: {error}") from error
    for name, old, new in zip(names, before, arguments):
        if name not in may_change and not same(old, new):
            raise Hint(
                f"Your function changed its argument {name} in place, and the caller still needs "
                "it. Work on a copy (.clone()), and write x = x + y in the place of x += y."
            )
    if answer is None:
        raise Hint("Your function returned None. Is a 'return' missing?")
    return answer


def copied(value: Any) -> Any:
    """Copy the tensors in lists, tuples and dictionaries; anything else is handed on."""
    return tree_map_only(
        Tensor, lambda x: x.detach().clone().requires_grad_(x.requires_grad), value
    )


def same(old: Any, new: Any) -> bool:
    """Whether the tensors and numbers in lists, tuples and dictionaries are equal."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return not isinstance(a, int | float) or a == b

    (leaves, form), (others, other_form) = tree_flatten(old), tree_flatten(new)
    return form == other_form and all(map(equal, leaves, others))


def to_tensor(answer: Any, shape: str = "one number") -> Tensor:
    """Convert an answer to a tensor on the CPU; a tensor keeps its graph.

    Accepts tensors, NumPy arrays, numbers, and lists or tuples of these.

    Raises:
        Hint: anything else, or half precision.
    """
    if answer is None:
        raise Hint("Your function returned None. Is a 'return' missing?")
    try:
        if isinstance(answer, list | tuple):
            tensor = torch.stack([to_tensor(item, shape) for item in answer])
        else:
            tensor = answer if isinstance(answer, Tensor) else torch.as_tensor(np.array(answer))
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0, dtype=torch.complex64)
    if tensor.is_complex():
        raise Hint(f"Your function returned {type(answer).__name__}, wanted {shape}.")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        raise Hint(f"Your answer has dtype {tensor.dtype}, 3 digits: compute in float32.")
    return tensor.cpu()


def close(answer: Tensor, wanted: Tensor) -> bool:
    """Whether two answers agree: shapes and whole numbers exactly, others to `TOLERANCE`."""
    if answer.shape != wanted.shape or not wanted.numel():
        return answer.shape == wanted.shape
    a, b = answer.detach().double(), wanted.detach().double()
    bound = TOLERANCE * float(b.abs().max()) if wanted.is_floating_point() else 0.0
    return bool(((a - b).abs() <= bound).all())


def _generic(right: Tensor) -> dict[str, list[Tensor]]:
    """The wrong answers of `GENERIC`; whole numbers stay whole, and are compared exactly."""
    made = {hint: wrong(right.detach().double()) for hint, wrong in GENERIC.items()}
    if right.is_floating_point():
        return made
    return {hint: [x.long() for x in wrong if not (x % 1).any()] for hint, wrong in made.items()}


def _attempts(values: list[Any]) -> Iterable[list[Tensor]]:
    """The wrong answers of one hint, each over all cases."""
    options = [value if isinstance(value, list) else [value] for value in values]
    return ([to_tensor(value) for value in over_cases] for over_cases in zip(*options))


def _difference(answer: Tensor, right: Tensor) -> str:
    gap = (answer.detach().double() - right.detach().double()).abs()
    place = np.unravel_index(int(gap.argmax()), gap.shape)
    values = f"you return {answer[place].item():.7g}, wanted {right[place].item():.7g}."
    if right.ndim == 0:
        return values.capitalize()
    where = ", ".join(str(int(index)) for index in place)
    return f"The shape is right, the values are not: at [{where}] {values}"


def _given(names: list[str], case: tuple) -> str:
    """The arguments of a case that are numbers, or a few of them."""
    few = (v.tolist() if isinstance(v, Tensor) and v.numel() <= 8 else v for v in case)
    shown = [
        f"{n} = {v}" for n, v in zip(names, few) if isinstance(v, int | float | list | tuple | dict)
    ]
    return f" That was for {', '.join(shown)}." if shown else ""


def _compare_gradients(
    function: Callable,
    case: tuple,
    table: Table,
    names: list[str],
    trains: Collection[str],
    shape: str,
) -> None:
    """Raise a hint unless the answer sends the same gradients as the solution."""
    inputs = copied(case)
    leaves = {n: x.requires_grad_() for n, x in zip(names, inputs) if n in trains}
    value, mistakes = table(*inputs)
    right = to_tensor(value)
    answer = to_tensor(call(function, *inputs, names=names), shape).reshape(right.shape)
    if not answer.requires_grad:
        raise Hint(
            f"The value is right, but no gradient reaches {' or '.join(leaves)}: .detach(), "
            ".item(), torch.no_grad(), torch.tensor() and NumPy cut the graph."
        )

    def gradients(value: Tensor) -> Sequence[Tensor]:
        """Gradients of a random combination of the entries: no two entries can cancel."""
        total = (value.double() * normal("gradient", *value.shape)).sum()
        inputs = [*leaves.values()]
        return torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)

    try:
        wanted, found = gradients(right), gradients(answer)
    except RuntimeError as error:
        raise Hint(f"The value is right, but it cannot be differentiated: {error}") from error
    if all(map(close, found, wanted)):
        return
    for hint, values in mistakes.items():
        for (wrong,) in _attempts([values]):
            if wrong.requires_grad and close(wrong, right):
                gaps = (f - g for f, g in zip(found, gradients(wrong)))
                if all(close(gap + goal, goal) for gap, goal in zip(gaps, wanted)):
                    raise Hint(hint)
    for name, gradient, goal in zip(leaves, found, wanted):
        if not close(gradient, goal):
            state = "is wrong: part of the path to the answer is cut."
            if close(gradient + goal, goal):
                state = "is 0: no path leads to the answer. Is it detached?"
            elif not gradient.isfinite().all():
                state = "holds NaN or infinity."
            raise Hint(f"The value is right, but the gradient of {name} {state}")


class _Calls(TorchFunctionMode):
    """Record the names of PyTorch's functions; some, such as a loss, are several operations."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Record what a function asks of PyTorch, whatever name it was called by.

    Attributes:
        names: of the functions and the ATen operations, without trailing underscore, and
            ``"autograd"`` if a graph was built.
        multiplications: scalar products computed by matrix products and by ``*``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.multiplications = 0
        self._hooks = saved_tensors_hooks(self._pack, lambda packed: packed)
        self._calls = _Calls(self.names)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.names.add("autograd")
        return tensor

    def __enter__(self):
        self._hooks.__enter__()
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)
        self._hooks.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        self.names.add(name)
        if name in ("mul", "addcmul"):
            self.multiplications += out.numel()
        elif name in ("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv"):
            left = args["add" in name]  # the first argument of addmm is the bias
            self.multiplications += out.numel() * left.shape[-1]
        elif name == "convolution":
            self.multiplications += out.numel() * args[1][0].numel()
        return out


@contextmanager
def python_steps(function: Callable) -> Iterator[list[int]]:
    """Count the bytecodes that a function, and others of its notebook, execute."""
    steps, names, before = [0], getattr(function, "__globals__", None), sys.gettrace()

    def trace(frame, event: str, argument):
        if frame.f_globals is not names:
            return None
        frame.f_trace_opcodes = True
        steps[0] += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def normal(name: str, *shape: int) -> Tensor:
    """Draw numbers of a normal distribution, always the same for a name and a shape."""
    return torch.randn(shape, generator=named_generator("check", name, *shape))


def uniform(name: str, *shape: int) -> Tensor:
    """Draw numbers from 0 to 1, always the same for a name and a shape."""
    return torch.rand(shape, generator=named_generator("check", name, *shape))


def clouds(name: str, batch: int = 2, num_points: int = 64) -> Tensor:
    """Draw clouds off the origin and unlike along the three axes, so that no mistake hides."""
    spread = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.7, 1.0]])[torch.arange(batch) % 2, None]
    return normal(name, batch, num_points, 3) * spread + torch.tensor([0.5, -1.0, 2.0])  # (B, N, 3)
