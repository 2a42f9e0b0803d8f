"""How a loop is compiled, and shared out to torch's own threads.

Between two operations torch's threads stay awake for a moment. Threads of our own would have to
wake up, and to wait for the cores that torch's still hold: longer than most of our loops take. So
the loops go to torch's team, through ``GOMP_parallel``: what a compiler makes of C's
``#pragma omp parallel``, in the OpenMP library that torch has brought along.

After a change here, touch `accel.numba_ops` and `accel.max_pool`: Numba keeps what it compiled
until their own files change.
"""

from __future__ import annotations

import ctypes
import os

import torch

try:
    from llvmlite import ir
    from numba import njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic
except ImportError:  # plain torch then does all the work
    njit = None

_PIECES = 4  # a thread takes one after the other, so that none waits long for one that woke late
ALONE = (1, 0)  # the team of the caller alone: one thread, and no address needed

if njit is not None:
    compiled = njit(cache=True, nogil=True, error_model="numpy")
else:

    def compiled(function):
        return function


def _address() -> int:
    """Where torch's ``GOMP_parallel`` is in this process; 0 where its OpenMP has none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value or 0
    except (AttributeError, OSError, TypeError):
        return 0


_openmp = [_address()]

# A team does not survive a fork, and nobody tells the child: it would wait for it for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _openmp.__setitem__(0, 0))


def team() -> tuple[int, int]:
    """As many threads as torch has, and what calls them; `ALONE` where nothing does.

    Always all of them: OpenMP would end threads, and start them again, for a team of another size.
    """
    threads = torch.get_num_threads()
    return (threads, _openmp[0]) if threads > 1 and _openmp[0] else ALONE


if njit is None:

    def share_out(kernel, arguments, count, team):
        kernel(*arguments, 0, count)

else:

    @intrinsic
    def share_out(typing, kernel, arguments, count, team):
        """Run ``kernel(*arguments, first, last)`` over ``count`` items, a piece at a time.

        Args:
            kernel: compiled; reads the arguments and writes what belongs to its items.
            team: threads, and the address of GOMP_parallel, which calls a C function on each.

        Raises:
            MemoryError: a piece failed: there is nothing else that a kernel raises.
        """
        called = kernel.get_call_type(typing, (*arguments, types.intp, types.intp), {})
        signature = types.void(kernel, arguments, types.intp, team)
        return signature, _code(kernel, called, len(arguments))

    _WORD, _BYTES, _NOTHING = ir.IntType(64), ir.IntType(8).as_pointer(), ir.VoidType()
    _CALLBACK = ir.FunctionType(_NOTHING, [_BYTES])
    _PARALLEL = ir.FunctionType(
        _NOTHING, [_CALLBACK.as_pointer(), _BYTES, ir.IntType(32), ir.IntType(32)]
    )

    def _code(kernel, called, size):
        """What writes the call: the C function below, and who calls it.

        void piece(job) { while ((i = job->next++) < job->pieces)
            job->failed |= kernel(job->arguments, count * i / pieces, count * (i + 1) / pieces); }
        """

        def write(context, builder, signature, values):
            _, arguments, count, team = values
            cells = [builder.extract_value(arguments, i) for i in range(size)]
            threads, address = (builder.extract_value(team, i) for i in range(2))
            alone = builder.icmp_signed("==", threads, _WORD(1))
            pieces = builder.select(alone, _WORD(1), builder.mul(threads, _WORD(_PIECES)))
            cells = [_WORD(0), _WORD(0), pieces, count, *cells]  # next, failed, pieces, count
            job = cgutils.alloca_once(builder, ir.LiteralStructType([c.type for c in cells]))
            for i, cell in enumerate(cells):
                builder.store(cell, cgutils.gep_inbounds(builder, job, 0, i))
            piece = _piece(context, builder, kernel, called, job.type)
            job_bytes = builder.bitcast(job, _BYTES)
            with builder.if_else(alone) as (here, there):
                with here:
                    builder.call(piece, [job_bytes])
                with there:
                    parallel = builder.inttoptr(address, _PARALLEL.as_pointer())
                    threads = builder.trunc(threads, ir.IntType(32))
                    builder.call(parallel, [piece, job_bytes, threads, ir.IntType(32)(0)])
            failed = builder.load(cgutils.gep_inbounds(builder, job, 0, 1))
            with builder.if_then(builder.icmp_signed("!=", failed, _WORD(0)), likely=False):
                context.call_conv.return_user_exc(builder, MemoryError, ("in a compiled loop",))
            return context.get_dummy_value()

        return write

    def _piece(context, builder, kernel, called, job_type):
        compiled = kernel.dispatcher.get_compile_result(called)
        context.active_code_library.add_linking_library(compiled.library)
        piece = ir.Function(builder.module, _CALLBACK, f"{builder.function.name}.piece")
        piece.linkage = "internal"
        body = ir.IRBuilder(piece.append_basic_block())
        job = body.bitcast(piece.args[0], job_type)
        cell = [cgutils.gep_inbounds(body, job, 0, i) for i in range(len(job_type.pointee))]
        pieces, count, *arguments = (body.load(c) for c in cell[2:])
        ask, work, leave = (piece.append_basic_block(name) for name in ("ask", "work", "leave"))
        body.branch(ask)

        body.position_at_end(ask)
        i = body.atomic_rmw("add", cell[0], _WORD(1), "monotonic")
        body.cbranch(body.icmp_signed("<", i, pieces), work, leave)

        body.position_at_end(work)
        edges = [
            body.sdiv(body.mul(count, j), pieces) for j in (i, body.add(i, _WORD(1)))
        ]  # of the piece
        function = context.declare_function(builder.module, compiled.fndesc)
        status, _ = context.call_conv.call_function(
            body, function, called.return_type, called.args, [*arguments, *edges]
        )
        failed = body.zext(status.is_error, _WORD)
        body.atomic_rmw("or", cell[1], failed, "monotonic")
        body.branch(ask)

        body.position_at_end(leave)
        body.ret_void()
        return piece
