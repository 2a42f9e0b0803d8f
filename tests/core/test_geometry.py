"""`serplib.geometry`, plain and compiled (`accel.cpu`), against slow code in double precision.

Clouds on an integer grid make every distance exact in float32 and full of ties, so a single wrong
tie shows.
"""

import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serplib import accel
from serplib.geometry import (
    chamfer_l2,
    farthest_point_sample,
    gather,
    knn,
    nearest_pairs,
    squared_distances,
    topk_smallest,
)

EXACT = settings(deadline=None, max_examples=50, derandomize=True)
needs_numba = pytest.mark.skipif(not accel.status().used, reason="needs numba")
PATHS = ["plain", pytest.param("fast", marks=needs_numba)]


def taking(path):
    """Run with the compiled searches switched on or off."""
    return accel.disabled() if path == "plain" else contextlib.nullcontext()


def grid_clouds(batch, max_points=14, largest=2):
    """Clouds ``(batch, N, 3)`` with whole coordinates: few values, hence many equal distances."""
    return st.integers(1, max_points).flatmap(
        lambda n: arrays(np.int64, (batch, n, 3), elements=st.integers(-largest, largest))
    )


def pairs(max_points=12, largest=2):
    return st.integers(1, 3).flatmap(
        lambda batch: st.tuples(
            grid_clouds(batch, max_points, largest), grid_clouds(batch, max_points, largest)
        )
    )


def slow_distances(a, b):
    return ((np.float64(a)[:, None] - np.float64(b)[None]) ** 2).sum(-1)  # (Q, N)


def slow_fps(cloud, m, start=0):
    distance = slow_distances(cloud, cloud)
    picked = [start]
    while len(picked) < m:
        others = [j for j in range(len(cloud)) if j not in picked]
        picked.append(max(others, key=lambda j: min(distance[i, j] for i in picked)))  # the first
    return picked


def slow_knn(queries, points, k):
    return [
        sorted(range(len(points)), key=lambda j: (row[j], j))[:k]
        for row in slow_distances(queries, points).tolist()
    ]


def slow_nearest(a, b):
    return [neighbors[0] for neighbors in slow_knn(a, b, 1)]


def slow_chamfer(a, b):
    distance = slow_distances(a, b)
    return distance.min(1).mean() + distance.min(0).mean()


def as_float32(array):
    return torch.from_numpy(np.float32(array))


def random_clouds(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---------------------------------------------------------------- against brute force, with ties


@pytest.mark.parametrize("path", PATHS)
@EXACT
@given(data=st.data())
def test_fps_equals_brute_force_with_ties_to_the_lowest_index(path, data):
    clouds = data.draw(st.integers(1, 3).flatmap(grid_clouds))
    m = data.draw(st.integers(1, clouds.shape[1]))
    start = data.draw(st.integers(0, clouds.shape[1] - 1))
    with taking(path):
        picked = farthest_point_sample(as_float32(clouds), m, start)
    assert picked.dtype == torch.int64
    assert picked.tolist() == [slow_fps(cloud, m, start) for cloud in clouds]


@pytest.mark.parametrize("path", PATHS)
@EXACT
@given(data=st.data())
def test_knn_equals_brute_force_with_ties_to_the_lowest_index(path, data):
    queries, points = data.draw(pairs())
    k = data.draw(st.integers(1, points.shape[1]))
    with taking(path):
        index = knn(as_float32(queries), as_float32(points), k)
    assert index.dtype == torch.int64
    assert index.tolist() == [slow_knn(q, p, k) for q, p in zip(queries, points, strict=True)]


@pytest.mark.parametrize("path", PATHS)
@EXACT
@given(clouds=pairs())
def test_nearest_pairs_equal_brute_force_with_ties_to_the_lowest_index(path, clouds):
    a, b = clouds
    with taking(path):
        to_b, to_a = nearest_pairs(as_float32(a), as_float32(b))
    assert to_b.dtype == to_a.dtype == torch.int64
    assert to_b.tolist() == [slow_nearest(x, y) for x, y in zip(a, b, strict=True)]
    assert to_a.tolist() == [slow_nearest(y, x) for x, y in zip(a, b, strict=True)]


@EXACT
@given(clouds=pairs(max_points=16, largest=1000))
def test_chamfer_equals_brute_force_in_double(clouds):
    a, b = clouds
    got = chamfer_l2(torch.from_numpy(a).double(), torch.from_numpy(b).double(), "none")
    wanted = [slow_chamfer(x, y) for x, y in zip(a, b, strict=True)]
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-15, atol=0)


@pytest.mark.parametrize("path", PATHS)
@EXACT
@given(clouds=pairs(largest=1000))
def test_chamfer_in_float32_is_rounded_only_by_its_means(path, clouds):
    a, b = clouds
    with taking(path):
        got = chamfer_l2(as_float32(a), as_float32(b), "none")
    wanted = [slow_chamfer(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got.numpy(), wanted, rtol=4e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_distances_are_exact_on_a_grid(dtype):
    a = torch.randint(-99, 99, (2, 7, 3), generator=torch.Generator().manual_seed(0))
    b = torch.randint(-99, 99, (2, 5, 3), generator=torch.Generator().manual_seed(1))
    got = squared_distances(a.to(dtype), b.to(dtype))
    assert got.dtype == dtype and got.shape == (2, 7, 5)
    for cloud in range(2):
        assert got[cloud].tolist() == slow_distances(a[cloud], b[cloud]).tolist()


# ---------------------------------------------------------------- examples by hand


@pytest.mark.parametrize("path", PATHS)
def test_fps_on_a_line_by_hand(path):
    line = torch.zeros(1, 5, 3)
    line[0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    with taking(path):
        # 0, then the far end 4, then 2; 1 and 3 are then equally far: 1 goes first.
        assert farthest_point_sample(line, 5).tolist() == [[0, 4, 2, 1, 3]]
        # From 2 both ends are equally far: 0 goes first.
        assert farthest_point_sample(line, 3, start=2).tolist() == [[2, 0, 4]]


@pytest.mark.parametrize("path", PATHS)
def test_fps_keeps_the_point_next_to_the_origin(path):
    """A well-known implementation skips points with |p|^2 <= 1e-3; they are points like others."""
    cloud = torch.tensor([[[0.01, 0.0, 0.0], [0.02, 0.0, 0.0], [-0.02, 0.0, 0.0]]])
    with taking(path):
        assert farthest_point_sample(cloud, 3).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("path", PATHS)
def test_fps_of_all_points_is_a_permutation(path):
    cloud = random_clouds(2, 50, 3)
    with taking(path):
        picked = farthest_point_sample(cloud, 50, start=7)
    assert picked[:, 0].tolist() == [7, 7]
    assert picked.sort(1).values.tolist() == [list(range(50))] * 2


@pytest.mark.parametrize("path", PATHS)
def test_fps_of_equal_points_takes_them_in_order(path):
    with taking(path):
        assert farthest_point_sample(torch.ones(1, 4, 3), 4, start=2).tolist() == [[2, 0, 1, 3]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("distinct", "size"), [(60, 205), (600, 2048), (600, 5000)])
def test_fps_takes_no_index_twice_when_places_run_out(path, distinct, size):
    """As of a cloud of few distinct points, repeated to the size that a data set wants."""
    places = random_clouds(1, distinct, 3)
    cloud = places[:, torch.arange(size) % distinct]
    with taking(path):
        picked = farthest_point_sample(cloud, 2 * distinct, start=5)[0]
        everything = farthest_point_sample(cloud, size)[0] if size < 300 else None
    assert picked[:distinct].sort().values.tolist() == list(range(distinct))  # each place once
    rest = [j for j in range(size) if j not in set(picked[:distinct].tolist())]
    assert picked[distinct:].tolist() == rest[:distinct]  # then duplicates, by index
    if everything is not None:
        assert everything.sort().values.tolist() == list(range(size))


@pytest.mark.parametrize("path", PATHS)
def test_fps_agrees_with_fpsample(path):
    fpsample = pytest.importorskip("fpsample", reason="a peer of `make bench`, not in the lock")
    cloud = random_clouds(1, 700, 3, seed=3)
    wanted = fpsample.fps_sampling(cloud[0].numpy(), 200, start_idx=0)
    with taking(path):
        assert farthest_point_sample(cloud, 200)[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("path", PATHS)
def test_a_query_among_the_points_is_its_own_first_neighbor(path):
    cloud = random_clouds(2, 60, 3, seed=4)
    with taking(path):
        index = knn(cloud, cloud, 5)
    assert index[..., 0].tolist() == [list(range(60))] * 2


@pytest.mark.parametrize("path", PATHS)
def test_single_points_three_apart_give_eighteen(path):
    a, b = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 2.0, 2.0]]])
    with taking(path):
        assert chamfer_l2(a, b).item() == 18.0


@pytest.mark.parametrize("path", PATHS)
def test_chamfer_takes_the_mean_of_each_side_on_its_own(path):
    a = torch.tensor([[[0.0, 0, 0]]])  # one point: its nearest is 1 away
    b = torch.tensor([[[1.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0]]])  # 1, 4 and 9 from it: mean 14/3
    with taking(path):
        assert chamfer_l2(a, b).item() == pytest.approx(1 + 14 / 3, rel=1e-7)
        assert chamfer_l2(b, a).item() == pytest.approx(1 + 14 / 3, rel=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_chamfer_reductions(path):
    a = torch.zeros(2, 1, 3)
    b = torch.tensor([[[3.0, 0, 0]], [[0, 1.0, 0]]])
    with taking(path):
        assert chamfer_l2(a, b, "none").tolist() == [18.0, 2.0]
        assert chamfer_l2(a, b).tolist() == 10.0
        assert chamfer_l2(a, b, "mean").shape == ()


@pytest.mark.parametrize("path", PATHS)
def test_chamfer_of_a_permuted_copy_is_exactly_zero_far_from_the_origin(path):
    """The form |a|^2 + |b|^2 - 2ab is some 1e-3 here, and negative as often as not."""
    a = random_clouds(3, 80, 3) + 100
    b = a[:, torch.randperm(80, generator=torch.Generator().manual_seed(1))]
    with taking(path):
        assert chamfer_l2(a, b, "none").tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("path", PATHS)
@EXACT
@given(seed=st.integers(0, 10**6), offset=st.sampled_from([0.0, 1.0, 300.0]))
def test_chamfer_is_symmetric_never_negative_and_blind_to_order(path, seed, offset):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, 9, 3, generator=generator) + offset
    b = a[:, :6] + 1e-3 * torch.randn(2, 6, 3, generator=generator)
    order_a = torch.randperm(9, generator=generator)
    order_b = torch.randperm(6, generator=generator)
    with taking(path):
        there = chamfer_l2(a, b, "none")
        assert (there >= 0).all()
        assert torch.equal(there, chamfer_l2(b, a, "none"))
        torch.testing.assert_close(
            there, chamfer_l2(a[:, order_a], b[:, order_b], "none"), rtol=1e-6, atol=0
        )


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_chamfer_gradcheck(reduction):
    a = random_clouds(2, 6, 3, seed=5, dtype=torch.float64).requires_grad_()
    b = random_clouds(2, 8, 3, seed=6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: chamfer_l2(x, y, reduction), (a, b))


def naive_chamfer(a, b):
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (distance.amin(2).mean(1) + distance.amin(1).mean(1)).mean()


def test_chamfer_gradient_is_that_of_the_naive_form():
    a = random_clouds(3, 20, 3, seed=7, dtype=torch.float64).requires_grad_()
    b = random_clouds(3, 30, 3, seed=8, dtype=torch.float64).requires_grad_()
    got = torch.autograd.grad(chamfer_l2(a, b), (a, b))
    wanted = torch.autograd.grad(naive_chamfer(a, b), (a, b))
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


@needs_numba
def test_chamfer_gradient_is_the_same_on_both_paths():
    gradients = []
    for path in ("plain", "fast"):
        a = random_clouds(3, 40, 3, seed=7).requires_grad_()
        b = random_clouds(3, 50, 3, seed=8).requires_grad_()
        with taking(path):
            gradients.append(torch.autograd.grad(chamfer_l2(a, b), (a, b)))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


@needs_numba
def test_compiled_chamfer_weighted_cloud_by_cloud_is_that_of_double_precision():
    # Each cloud has a weight of its own, and one point is the nearest of many.
    a, b = random_clouds(5, 40, 3, seed=7), random_clouds(5, 7, 3, seed=8)
    weight = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5])  # (B,)
    found = {}
    for dtype in (torch.float32, torch.float64):
        x, y = (cloud.to(dtype, copy=True).requires_grad_() for cloud in (a, b))
        loss = (weight.to(dtype) * chamfer_l2(x, y, "none")).sum()
        found[dtype] = (loss, *torch.autograd.grad(loss, (x, y)))
    for ours, exact in zip(found[torch.float32], found[torch.float64], strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)
    assert found[torch.float32][1][2].abs().max() == 0 < found[torch.float32][2][3].abs().min()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("which", [0, 1])
def test_one_cloud_alone_may_want_a_gradient(path, which):
    clouds = [random_clouds(2, 9, 3, seed=7), random_clouds(2, 6, 3, seed=8)]
    exact = [cloud.double() for cloud in clouds]
    clouds[which].requires_grad_(), exact[which].requires_grad_()
    with taking(path):
        chamfer_l2(*clouds).backward()
    chamfer_l2(*exact).backward()
    torch.testing.assert_close(clouds[which].grad.double(), exact[which].grad, rtol=1e-5, atol=1e-7)
    assert clouds[1 - which].grad is None
    with taking(path), torch.no_grad():
        assert not chamfer_l2(*clouds).requires_grad


@needs_numba
def test_a_second_derivative_is_refused_by_the_compiled_code():
    a, b = random_clouds(1, 5, 3).requires_grad_(), random_clouds(1, 5, 3, seed=1)
    with pytest.raises(NotImplementedError, match="SERP_FAST=0"):
        torch.autograd.grad(chamfer_l2(a, b), a, create_graph=True)
    with taking("plain"):
        (gradient,) = torch.autograd.grad(chamfer_l2(a, b), a, create_graph=True)
    gradient.sum().backward()


@given(
    values=arrays(
        np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.integers(0, 5)
    ),
    data=st.data(),
)
def test_topk_smallest_is_the_front_of_a_stable_sort(values, data):
    k = data.draw(st.integers(1, values.shape[1]))
    wanted = np.argsort(values, axis=1, kind="stable")[:, :k]
    for dtype in (torch.float32, torch.float64):
        assert topk_smallest(torch.from_numpy(values).to(dtype), k).tolist() == wanted.tolist()


@pytest.mark.parametrize("path", PATHS)
def test_indices_carry_no_gradient(path):
    cloud = random_clouds(1, 9, 3).requires_grad_()
    with taking(path):
        for index in (farthest_point_sample(cloud, 3), knn(cloud, cloud, 3)):
            assert not index.requires_grad


# ---------------------------------------------------------------- compiled against plain


@needs_numba
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_fast_equals_plain_bit_for_bit(batch):
    a = random_clouds(batch, 257, 3, seed=9)
    b = torch.cat([a[:, ::3], random_clouds(batch, 100, 3, seed=10)], 1)
    found = {}
    for path in ("plain", "fast"):
        with taking(path):
            found[path] = (
                farthest_point_sample(a, 64, start=11),
                knn(b, a, 17),
                *nearest_pairs(a, b),
                chamfer_l2(a, b, "none"),
            )
    for plain, compiled in zip(found["plain"][:-1], found["fast"][:-1], strict=True):
        assert torch.equal(plain, compiled)
    exact = chamfer_l2(a.double(), b.double(), "none")
    for path in found:  # a mean of many: in the order in which each adds them up
        assert torch.allclose(found[path][-1].double(), exact, rtol=1e-6)


@needs_numba
@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-25, 19), n=st.integers(1, 40))
def test_fast_equals_plain_at_any_magnitude(seed, exponent, n):
    """From squares that underflow to squares that are infinite."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2, n, 3, generator=generator) * 10.0**exponent
    b = torch.randn(2, n + 1, 3, generator=generator) * 10.0**exponent
    found = {}
    for path in ("plain", "fast"):
        with taking(path):
            found[path] = farthest_point_sample(a, n), knn(a, b, n), *nearest_pairs(a, b)
    for plain, compiled in zip(found["plain"], found["fast"], strict=True):
        assert torch.equal(plain, compiled)


def hard_clouds(size, kind):
    """Clouds ``(2, size, 3)``, most with many equal distances."""
    generator = torch.Generator().manual_seed(size)
    steps = torch.randint(-40, 41, (2, size, 3), generator=generator).float() / 8
    if kind == "plane":
        steps[..., 1] = 0.375
    elif kind == "line":
        steps[..., :2] = steps[..., 2:]
    elif kind == "duplicates":  # a hundred places for all points: most distances end at zero
        steps = steps[:, torch.randint(min(size, 100), (size,), generator=generator)]
    elif kind == "one place":
        steps = torch.full_like(steps, 0.1)
    elif kind == "an outlier":
        steps = random_clouds(2, size, 3, seed=size) * 1e-3
        steps[:, 2] = 1e6
    elif kind == "far from the origin":
        steps = random_clouds(2, size, 3, seed=size) + 1000
    elif kind == "squares overflow":
        steps = random_clouds(2, size, 3, seed=size) * 1e19
    elif kind == "squares underflow":
        steps = random_clouds(2, size, 3, seed=size) * 1e-23
    return steps


HARD = ["grid", "plane", "line", "duplicates", "one place", "an outlier", "far from the origin"]
HARD += ["squares overflow", "squares underflow"]


@needs_numba
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize(("size", "m"), [(65, 65), (2048, 100), (2049, 100), (4500, 300)])
def test_farthest_points_of_hard_clouds_are_those_of_the_plain_code(kind, size, m):
    """Above 2,048 points the loop works in blocks."""
    cloud = hard_clouds(size, kind)
    found = []
    for path in ("plain", "fast"):
        with taking(path):
            found.append(farthest_point_sample(cloud, m, start=size // 3))
    assert torch.equal(*found)


@needs_numba
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize(("size", "k"), [(5, 5), (33, 17), (300, 1), (300, 40), (300, 300)])
def test_neighbours_of_hard_clouds_are_those_of_the_plain_code(kind, size, k):
    cloud = hard_clouds(size, kind)
    found = {}
    for path in ("plain", "fast"):
        with taking(path):
            found[path] = knn(cloud[:, :9], cloud, k), *nearest_pairs(cloud, cloud[:, ::2])
    for plain, compiled in zip(found["plain"], found["fast"], strict=True):
        assert torch.equal(plain, compiled)


@needs_numba
def test_the_compiled_code_is_really_taken(monkeypatch):
    from serplib.accel import cpu

    taken = []
    for name in ("farthest_point_sample", "knn", "nearest_pairs", "chamfer_l2"):
        original = getattr(cpu, name)
        monkeypatch.setattr(
            cpu, name, lambda *a, f=original, n=name: taken.append(n) or f(*a), raising=True
        )
    cloud = random_clouds(2, 20, 3)
    for path in ("plain", "fast"):
        with taking(path):
            farthest_point_sample(cloud, 4), knn(cloud, cloud, 4), nearest_pairs(cloud, cloud)
            chamfer_l2(cloud, cloud)
        assert len(taken) == (0 if path == "plain" else 4)
    assert taken == ["farthest_point_sample", "knn", "nearest_pairs", "chamfer_l2"]


@needs_numba
def test_loops_take_finite_float32_clouds_on_a_cpu_alone():
    cloud = random_clouds(1, 5, 3)
    assert accel.searches(cloud) and accel.searches(cloud, cloud.clone().requires_grad_())
    for bad in (float("nan"), float("inf"), -float("inf")):
        spoiled = cloud.clone()
        spoiled[0, 4, 1] = bad
        assert accel.searches(spoiled) is accel.searches(cloud, spoiled) is None
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert accel.searches(cloud.to(dtype)) is None
    assert accel.searches(cloud.to("meta")) is None
    with accel.disabled():
        assert accel.searches(cloud) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("path", PATHS)
def test_nan_and_inf_are_answered_and_do_not_spoil_other_clouds(path, bad):
    cloud = random_clouds(2, 12, 3)
    spoiled = cloud.clone()
    spoiled[0, 4, 1] = bad
    with taking(path):
        assert farthest_point_sample(spoiled, 6).shape == (2, 6)
        assert farthest_point_sample(spoiled, 6)[1].equal(farthest_point_sample(cloud, 6)[1])
        assert knn(spoiled, spoiled, 5)[1].equal(knn(cloud, cloud, 5)[1])
        for got, wanted in zip(
            nearest_pairs(spoiled, cloud), nearest_pairs(cloud, cloud), strict=True
        ):
            assert got[1].equal(wanted[1])
        values = chamfer_l2(spoiled, cloud, "none")
    assert not values[0].isfinite() and values[1] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_point_that_is_not_finite_is_nobodys_near_neighbor(bad):
    """inf - inf is a NaN with the sign bit set on some processors: it must not sort first."""
    cloud = random_clouds(1, 8, 3)
    cloud[0, 3, 0] = bad
    index = knn(cloud, cloud, 8)
    others = [q for q in range(8) if q != 3]
    assert (index[0, others, -1] == 3).all()
    assert index.equal(knn(cloud.double(), cloud.double(), 8))


@needs_numba
def test_threads_may_search_at_the_same_time():
    cloud = random_clouds(8, 200, 3)
    found, wanted = [], knn(cloud, cloud, 5)
    threads = [
        threading.Thread(target=lambda: found.append(knn(cloud, cloud, 5))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(torch.equal(index, wanted) for index in found)


# ---------------------------------------------------------------- types, layouts, batches


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype):
    a, b = random_clouds(2, 60, 3).to(dtype), random_clouds(2, 50, 3, seed=1).to(dtype)
    assert squared_distances(a, b).dtype == torch.float32
    assert farthest_point_sample(a, 20).equal(farthest_point_sample(a.float(), 20))
    assert knn(a, b, 20).equal(knn(a.float(), b.float(), 20))
    got = chamfer_l2(a, b)
    assert got.dtype == torch.float32 and got.equal(chamfer_l2(a.float(), b.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_merge_near_distances(dtype):
    # 4 + 0.01^2 rounds to 4 in either type: measured there, the two would tie and 0 would win.
    points = torch.tensor([[[2, 0.01, 0], [2, 0, 0]]], dtype=dtype)
    assert knn(torch.zeros(1, 1, 3, dtype=dtype), points, 2).tolist() == [[[1, 0]]]
    assert farthest_point_sample(
        torch.tensor([[[0, 0, 0], [2, 0, 0], [2, 0.01, 0]]], dtype=dtype), 2
    ).tolist() == [[0, 2]]


def test_double_clouds_are_measured_in_double():
    # 1 + 1e-9 is 1 in float32: measured there, the two would tie and 0 would win.
    points = torch.tensor([[[1 + 1e-9, 0, 0], [1, 0, 0]]], dtype=torch.float64)
    zero = torch.zeros(1, 1, 3, dtype=torch.float64)
    assert knn(zero, points, 2).tolist() == [[[1, 0]]]
    assert nearest_pairs(zero, points)[0].tolist() == [[1]]
    assert farthest_point_sample(torch.cat([zero, points.flip(1)], 1), 2).tolist() == [[0, 2]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded", "sliced"])
def test_layout_in_memory_does_not_matter(path, layout):
    base = random_clouds(3, 40, 3, seed=12)
    cloud = {
        "transposed": base.transpose(1, 2).contiguous().transpose(1, 2),
        "strided": base.repeat_interleave(2, 1)[:, ::2],
        "expanded": base[:1].expand(3, -1, -1),
        "sliced": torch.cat([base, base], -1)[..., :3],
    }[layout]
    assert not cloud.is_contiguous()
    dense = cloud.contiguous()
    with taking(path):
        assert farthest_point_sample(cloud, 9).equal(farthest_point_sample(dense, 9))
        assert knn(cloud, cloud, 9).equal(knn(dense, dense, 9))
        assert chamfer_l2(cloud, cloud.flip(0)).equal(chamfer_l2(dense, dense.flip(0)))
        gradients = []
        for points in (cloud, dense):
            points = points.detach().requires_grad_()
            gradients += torch.autograd.grad(chamfer_l2(points, base[:, :7]), points)
        assert gradients[0].abs().max() > 0 and gradients[0].equal(gradients[1])


@pytest.mark.parametrize("path", PATHS)
def test_clouds_of_a_batch_do_not_see_each_other(path):
    a, b = random_clouds(4, 30, 3, seed=13), random_clouds(4, 20, 3, seed=14)
    with taking(path):
        together = (
            farthest_point_sample(a, 8),
            knn(a, b, 8),
            *nearest_pairs(a, b),
            chamfer_l2(a, b, "none"),
        )
        for i in range(4):
            x, y = a[i : i + 1], b[i : i + 1]
            alone = (
                farthest_point_sample(x, 8),
                knn(x, y, 8),
                *nearest_pairs(x, y),
                chamfer_l2(x, y, "none"),
            )
            for whole, one in zip(together, alone, strict=True):
                assert torch.equal(whole[i : i + 1], one)


@pytest.mark.parametrize("path", PATHS)
def test_inputs_are_left_as_they_were(path):
    a, b = random_clouds(2, 20, 3), random_clouds(2, 10, 3, seed=1)
    a_before, b_before = a.clone(), b.clone()
    with taking(path):
        farthest_point_sample(a, 5), knn(a, b, 5), chamfer_l2(a, b)
    assert a.equal(a_before) and b.equal(b_before)


# ---------------------------------------------------------------- gather


def test_gather_takes_cloud_by_cloud():
    features = torch.arange(24.0).view(2, 3, 4)
    index = torch.tensor([[[2, 0]], [[1, 1]]])  # (2, 1, 2)
    got = gather(features, index)
    assert got.shape == (2, 1, 2, 4)
    assert got[0, 0].equal(features[0, [2, 0]]) and got[1, 0].equal(features[1, [1, 1]])
    assert gather(features, index[:, 0]).equal(got[:, 0])


def test_gather_takes_any_number_of_clouds():
    points = torch.arange(900.0).view(300, 1, 3)
    assert gather(points, torch.zeros(300, 2, dtype=torch.long)).equal(points.expand(-1, 2, -1))
    assert chamfer_l2(points, points + 1, "none").tolist() == [6.0] * 300


def test_gather_takes_whole_numbers_and_truth_values():
    labels = torch.arange(8).view(2, 4, 1)
    index = torch.tensor([[3, 0], [1, 1]])
    assert gather(labels, index)[..., 0].tolist() == [[3, 0], [5, 5]]
    assert gather(labels > 4, index)[..., 0].tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 4), (3, 2, 2, 2)])
def test_gather_sums_a_gradient_in_a_fixed_order_off_the_cpu(shape):
    """There torch.gather would not: indexing does, and takes an index of any shape as well."""
    points = torch.empty(3, 7, 2, device="meta", requires_grad=True)
    index = torch.zeros(shape, dtype=torch.long, device="meta")
    taken = gather(points, index)
    assert taken.shape == (*shape, 2) and taken.grad_fn.name() == "IndexBackward0"
    on_cpu = gather(torch.zeros(3, 7, 2, requires_grad=True), torch.zeros_like(index, device="cpu"))
    assert on_cpu.grad_fn.name() != "IndexBackward0"


def test_gather_gradient_counts_how_often_a_point_is_taken():
    points = torch.zeros(1, 3, 3, requires_grad=True)
    gather(points, torch.tensor([[0, 2, 2]])).sum().backward()
    assert points.grad[0, :, 0].tolist() == [1, 0, 2]


# ---------------------------------------------------------------- bad arguments


CLOUD = torch.zeros(2, 5, 3)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: farthest_point_sample(CLOUD, 6), r"num_samples is 6, wanted 1\.\.5"),
        (lambda: farthest_point_sample(CLOUD, 0), r"num_samples is 0, wanted 1\.\.5"),
        (lambda: farthest_point_sample(CLOUD, 2, start=5), r"start is 5, wanted 0\.\.4"),
        (lambda: farthest_point_sample(CLOUD, 2, start=-1), r"start is -1, wanted 0\.\.4"),
        (lambda: farthest_point_sample(CLOUD[:, :4], 2, start=4), r"start is 4, wanted 0\.\.3"),
        (lambda: farthest_point_sample(CLOUD, 2, start=9), r"start is 9, wanted 0\.\.4"),
        (lambda: farthest_point_sample(CLOUD, 9), r"num_samples is 9, wanted 1\.\.5"),
        (lambda: knn(CLOUD, CLOUD, 9), r"k is 9, wanted 1\.\.5"),
        (lambda: farthest_point_sample(CLOUD[0], 2), r"points has shape \(5, 3\)"),
        (lambda: farthest_point_sample(CLOUD[..., :2], 2), r"shape \(2, 5, 2\)"),
        (lambda: farthest_point_sample(CLOUD[:, :0], 1), r"shape \(2, 0, 3\)"),
        (lambda: knn(CLOUD, CLOUD, 6), r"k is 6, wanted 1\.\.5"),
        (lambda: knn(CLOUD, CLOUD, 0), r"k is 0, wanted 1\.\.5"),
        (lambda: knn(CLOUD, CLOUD[0], 2), r"second argument has shape \(5, 3\)"),
        (lambda: knn(CLOUD[0], CLOUD, 2), r"first argument has shape \(5, 3\)"),
        (lambda: knn(CLOUD[:, :0], CLOUD, 2), r"shape \(2, 0, 3\)"),
        (lambda: knn(CLOUD[:1], CLOUD, 2), r"1 clouds against 2"),
        (lambda: nearest_pairs(CLOUD, CLOUD[:1]), r"2 clouds against 1"),
        (lambda: nearest_pairs(CLOUD, CLOUD[..., :2]), r"second argument has shape \(2, 5, 2\)"),
        (lambda: chamfer_l2(CLOUD[:, :0], CLOUD), r"first argument has shape \(2, 0, 3\)"),
        (lambda: chamfer_l2(CLOUD, CLOUD[:, :0]), r"second argument has shape \(2, 0, 3\)"),
        (lambda: chamfer_l2(CLOUD, CLOUD[:1]), r"2 clouds against 1"),
        (lambda: chamfer_l2(CLOUD, CLOUD, "sum"), r"reduction is 'sum'"),
        (lambda: squared_distances(CLOUD, CLOUD[:1]), r"2 clouds against 1"),
        (lambda: gather(CLOUD, torch.zeros(3, 1, dtype=torch.long)), r"\(2, 5, 3\).*\(3, 1\)"),
        (lambda: gather(CLOUD, torch.zeros(2, dtype=torch.long)), r"\(2, 5, 3\).*\(2,\)"),
    ],
)
def test_bad_arguments_are_named(path, call, message):
    with taking(path), pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "call",
    [
        lambda: farthest_point_sample(CLOUD.long(), 2),
        lambda: knn(CLOUD.int(), CLOUD, 2),
        lambda: knn(CLOUD, CLOUD.int(), 2),
        lambda: chamfer_l2(CLOUD, CLOUD.long()),
        lambda: squared_distances(CLOUD.bool(), CLOUD),
    ],
)
def test_whole_numbers_are_refused(path, call):
    with taking(path), pytest.raises(TypeError, match="wanted a float type"):
        call()
