"""`perturbation`: the pretext task, against a slow loop; and the numbers the course quotes."""

import dataclasses
import hashlib

import pytest
import torch

from serplib.geometry import farthest_point_sample, gather, knn
from serplib.perturbation import (
    Perturbation,
    authors_normalize,
    expected_touched,
    scale_and_shift,
)
from serplib.seeding import named_generator, named_seed


def sphere(batch, num_points=1024, seed=0, dtype=torch.float32):
    """Random points on the unit sphere, ``(batch, num_points, 3)``."""
    points = torch.randn(batch, num_points, 3, generator=named_generator(seed, "sphere"))
    return (points / points.norm(dim=-1, keepdim=True)).to(dtype)


def patches_of(perturbation, points, centers):
    return knn(gather(points, centers), points, perturbation.patch_size)  # (B, P, n)


# ---------------------------------------------------------------- the paper's numbers


def test_defaults_are_the_papers():
    assert dataclasses.asdict(Perturbation()) == {
        "num_patches": 20,
        "patch_size": 20,
        "sigma": 0.03,
        "centers": "random",
        "noise": "iid",
        "overlap": "last",
    }


def test_a_perturbation_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Perturbation().sigma = 0.1


def test_expected_touched():
    assert round(expected_touched(1024, 20, 20), 1) == 333.8
    assert expected_touched(1024, 1, 20) == pytest.approx(20)
    assert expected_touched(20, 3, 20) == 20  # a patch that is the whole cloud


def test_touched_on_spheres_is_the_expected_number_and_fps_touches_more():
    points = sphere(100)
    counts = {}
    for centers in ("random", "fps"):
        _, touched, _ = Perturbation(centers=centers)(points, named_generator(1, "count"))
        counts[centers] = touched.sum(1).double()
    # 100 clouds of standard deviation about 12 give the mean to about 1.2.
    assert abs(counts["random"].mean().item() - 333.8) < 5
    assert 8 < counts["random"].std().item() < 18
    # Farthest centres hardly overlap: nearly all of 400, on every single cloud more than average.
    assert 385 < counts["fps"].mean().item() <= 400
    assert counts["fps"].min() > counts["random"].max()


@pytest.mark.parametrize("noise", ["iid", "rigid"])
def test_noise_has_mean_zero_and_the_stated_deviation(noise):
    points = sphere(100)
    perturbed, touched, _ = Perturbation(noise=noise)(points, named_generator(2, "noise"))
    shift = (perturbed - points)[touched].double()  # (some 33,000, 3)
    # iid: 100,000 numbers, standard error of the deviation 0.03 / sqrt(200,000) = 0.00007.
    # rigid: 2,000 patches, 6,000 numbers, some twenty times each: 0.0003.
    within = 0.0004 if noise == "iid" else 0.0015
    assert abs(shift.std().item() - 0.03) < within
    assert shift.mean(0).abs().max().item() < 3 * within
    assert (shift.std(0) - 0.03).abs().max().item() < 3 * within  # each axis alike


def test_noise_is_independent_from_axis_to_axis():
    points = sphere(100)
    perturbed, touched, _ = Perturbation()(points, named_generator(3, "axes"))
    correlation = torch.corrcoef((perturbed - points)[touched].double().T)
    assert (correlation - torch.eye(3)).abs().max().item() < 0.02


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("centers", ["random", "fps"])
@pytest.mark.parametrize("noise", ["iid", "rigid"])
@pytest.mark.parametrize("overlap", ["last", "sum"])
def test_same_seed_same_result_other_seed_other_result(centers, noise, overlap):
    points = sphere(2, 200)
    perturbation = Perturbation(8, 10, centers=centers, noise=noise, overlap=overlap)
    first = perturbation(points, named_generator(1))
    again = perturbation(points, named_generator(1))
    other = perturbation(points, named_generator(2))
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_clouds_of_a_batch_get_their_own_noise():
    points = sphere(1, 200).expand(2, -1, -1)
    perturbed, touched, centers = Perturbation(8, 10)(points, named_generator(1))
    assert not touched[0].equal(touched[1])
    assert not centers[0].equal(centers[1])
    assert not perturbed[0].equal(perturbed[1])


def test_randomness_comes_from_the_generator_alone():
    points = sphere(2, 100)
    torch.manual_seed(0)
    first = Perturbation(4, 5)(points, named_generator(1))
    state = torch.get_rng_state()
    torch.manual_seed(99)
    second = Perturbation(4, 5)(points, named_generator(1))
    assert first.points.equal(second.points)
    torch.manual_seed(0)
    assert torch.get_rng_state().equal(state)  # the global generator was not advanced


def test_named_seed_is_the_same_everywhere():
    assert named_seed(7, "perturb", 3) == 23265240536734079
    digest = hashlib.sha256(b"7/perturb/3").digest()
    assert named_seed(7, "perturb", 3) == int.from_bytes(digest[:7], "big")
    assert 0 <= named_seed("x") < 2**56  # what torch accepts as a seed


def test_named_seeds_differ():
    names = [(seed, purpose, step) for seed in range(5) for purpose in "ab" for step in range(50)]
    seeds = {named_seed(*name) for name in names}
    assert len(seeds) == len(names)
    assert named_seed(1, "a") != named_seed("a", 1)


def test_named_generators_are_independent():
    draws = torch.stack([torch.randn(1000, generator=named_generator(0, i)) for i in range(20)])
    between = torch.corrcoef(draws.double()) - torch.eye(20)
    assert between.abs().max().item() < 0.15
    assert named_generator(7, "x").initial_seed() == named_seed(7, "x")


# ---------------------------------------------------------------- which points, and what they get


@pytest.mark.parametrize("centers", ["random", "fps"])
def test_touched_is_exactly_the_union_of_the_patches(centers):
    points = sphere(3, 300)
    perturbation = Perturbation(12, 15, centers=centers)
    perturbed, touched, picked = perturbation(points, named_generator(4))
    patches = patches_of(perturbation, points, picked)
    for cloud in range(3):
        union = sorted(set(patches[cloud].flatten().tolist()))
        assert touched[cloud].nonzero()[:, 0].tolist() == union
    assert touched.dtype == torch.bool
    assert torch.equal(perturbed[~touched], points[~touched])  # bit for bit
    assert (perturbed != points).any(-1).equal(touched)


def test_centers_are_distinct_and_touched():
    points = sphere(50, 40)
    _, touched, centers = Perturbation(39, 1)(points, named_generator(5))
    assert centers.shape == (50, 39) and centers.dtype == torch.int64
    for row in centers.tolist():
        assert len(set(row)) == 39
    assert touched.sum(1).tolist() == [39] * 50
    assert touched.gather(1, centers).all()


def test_random_centers_are_uniform():
    points = sphere(2000, 10)
    _, _, centers = Perturbation(3, 1)(points, named_generator(6))
    share = torch.bincount(centers.flatten(), minlength=10) / 2000  # each 0.3, +- 0.01
    assert (share - 0.3).abs().max() < 0.05


def test_fps_centers_are_farthest_points_from_a_random_start():
    points = sphere(6, 200)
    centers = Perturbation(15, 5, centers="fps").pick_centers(points, named_generator(7))
    for cloud in range(6):
        start = int(centers[cloud, 0])
        wanted = farthest_point_sample(points[cloud : cloud + 1], 15, start)
        assert centers[cloud].tolist() == wanted[0].tolist()
    assert len(set(centers[:, 0].tolist())) > 1  # the start is drawn anew for each cloud


def test_fps_centers_spread_wider_than_random_ones():
    points = sphere(10, 300)
    nearest = {}
    for kind in ("random", "fps"):
        centers = Perturbation(20, 5, centers=kind).pick_centers(points, named_generator(8))
        distance = torch.cdist(gather(points, centers), gather(points, centers))
        distance += 9 * torch.eye(20)
        nearest[kind] = distance.amin((1, 2))
    assert (nearest["fps"] > 2 * nearest["random"]).all()


def slow_perturb(perturbation, points, generator):
    """The same by loops over clouds, patches and points, drawing in the documented order."""
    centers = perturbation.pick_centers(points, generator)
    patches = patches_of(perturbation, points, centers).tolist()
    per_patch = 1 if perturbation.noise == "rigid" else perturbation.patch_size
    draw = torch.randn(len(points), perturbation.num_patches, per_patch, 3, generator=generator)
    shift = torch.zeros_like(points)
    for b, cloud in enumerate(patches):
        for p, patch in enumerate(cloud):
            for j, point in enumerate(patch):
                noise = perturbation.sigma * draw[b, p, 0 if per_patch == 1 else j]
                if perturbation.overlap == "last":
                    shift[b, point] = noise
                else:
                    shift[b, point] += noise
    return points + shift


@pytest.mark.parametrize("noise", ["iid", "rigid"])
@pytest.mark.parametrize("overlap", ["last", "sum"])
@pytest.mark.parametrize("centers", ["random", "fps"])
def test_overlaps_as_a_slow_loop_resolves_them(noise, overlap, centers):
    points = sphere(3, 60)
    perturbation = Perturbation(10, 12, 0.1, centers, noise, overlap)  # 120 draws on 60 points
    got = perturbation(points, named_generator(9)).points
    assert torch.equal(got, slow_perturb(perturbation, points, named_generator(9)))


@pytest.mark.parametrize("field", ["noise", "overlap", "centers"])
def test_each_choice_changes_the_result(field):
    points = sphere(1, 60)
    values = {"noise": ("iid", "rigid"), "overlap": ("last", "sum"), "centers": ("random", "fps")}
    one, two = (
        Perturbation(10, 12, **{field: v})(points, named_generator(9)).points for v in values[field]
    )
    assert not torch.equal(one, two)


def shifts_by_lonely_patch(noise):
    """The shifts of the points of every patch, those that no other patch touches."""
    points = sphere(4, 500, dtype=torch.float64)
    perturbation = Perturbation(10, 12, noise=noise)
    perturbed, _, centers = perturbation(points, named_generator(10))
    patches = patches_of(perturbation, points, centers)
    found = []
    for cloud in range(4):
        times = torch.bincount(patches[cloud].flatten(), minlength=500)
        for patch in patches[cloud]:
            lonely = patch[times[patch] == 1]
            if len(lonely) > 1:
                found.append((perturbed - points)[cloud, lonely])
    assert len(found) > 20
    return found


def test_rigid_moves_a_patch_as_one():
    for shifts in shifts_by_lonely_patch("rigid"):
        torch.testing.assert_close(shifts, shifts[:1].expand_as(shifts), rtol=0, atol=1e-15)


def test_iid_moves_every_point_on_its_own():
    for shifts in shifts_by_lonely_patch("iid"):
        assert len(shifts.unique(dim=0)) == len(shifts)


@pytest.mark.parametrize("noise", ["iid", "rigid"])
def test_sigma_zero_is_the_identity(noise):
    points = sphere(2, 100)
    perturbed, touched, _ = Perturbation(5, 7, 0.0, noise=noise)(points, named_generator(11))
    assert torch.equal(perturbed, points)
    assert touched.sum(1).min() >= 7  # what would have been moved is still said


def test_sigma_scales_the_noise_and_nothing_else():
    points = sphere(2, 100, dtype=torch.float64)
    small = Perturbation(5, 7, 0.01)(points, named_generator(12))
    large = Perturbation(5, 7, 0.02)(points, named_generator(12))
    assert small.touched.equal(large.touched) and small.centers.equal(large.centers)
    torch.testing.assert_close(
        2 * (small.points - points), large.points - points, rtol=1e-6, atol=1e-12
    )


def test_the_order_of_the_points_is_kept_and_the_input_left_alone():
    points = sphere(1, 400)
    before = points.clone()
    perturbed = Perturbation(5, 5, 0.001)(points, named_generator(13)).points
    assert points.equal(before)
    assert knn(perturbed, points, 1)[0, :, 0].tolist() == list(range(400))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_types_are_kept(dtype):
    points = sphere(1, 64, dtype=dtype)
    perturbed, touched, _ = Perturbation(3, 4)(points, named_generator(14))
    assert perturbed.dtype == dtype
    assert torch.equal(perturbed[~touched], points[~touched])
    assert (perturbed[touched] != points[touched]).any(-1).double().mean() > 0.8


def test_patches_may_be_as_large_as_the_cloud():
    points = sphere(1, 6)
    assert Perturbation(6, 6)(points, named_generator(15)).touched.all()


def test_one_patch_of_one_point_moves_one_point():
    points = sphere(3, 9)
    bent = Perturbation(1, 1)(points, named_generator(16))
    assert bent.touched.sum(1).tolist() == [1, 1, 1]
    assert ((bent.points != points).any(-1) == bent.touched).all()


# ---------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"centers": "grid"}, "centers is 'grid': must be 'random' or 'fps'"),
        ({"noise": "uniform"}, "noise is 'uniform': must be 'iid' or 'rigid'"),
        ({"overlap": "first"}, "overlap is 'first': must be 'last' or 'sum'"),
        ({"num_patches": 0}, "num_patches is 0"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"sigma": -0.1}, r"sigma is -0\.1"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": float("inf")}, "sigma is inf"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10, 3), r"\(10, 3\)"),
        ((1, 10, 4), r"\(1, 10, 4\)"),
        ((1, 4, 3), "5 patches of 2 points do not fit clouds of 4 points"),
    ],
)
def test_bad_clouds_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(5, 2)(torch.zeros(shape), named_generator(0))
    with pytest.raises(ValueError, match=message):
        Perturbation(5, 2).pick_centers(torch.zeros(shape), named_generator(0))
    with pytest.raises(ValueError, match="2 patches of 5 points do not fit"):
        Perturbation(2, 5)(torch.zeros(1, 4, 3), named_generator(0))


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match="wanted a float type"):
        Perturbation(2, 2)(torch.zeros(1, 4, 3, dtype=torch.long), named_generator(0))


# ---------------------------------------------------------------- the authors' other steps


def test_scale_and_shift_stays_in_its_range_and_fills_it():
    """Three points that show scale and shift of each axis without noise."""
    points = torch.tensor([[0.0, 0, 0], [1, 1, 1]], dtype=torch.float64).expand(3000, -1, -1)
    out = scale_and_shift(points, named_generator(16))
    shift, scale = out[:, 0], out[:, 1] - out[:, 0]  # (3000, 3)
    assert out.dtype == torch.float64
    for values, low, high in ((scale, 2 / 3, 3 / 2), (shift, -0.2, 0.2)):
        assert values.min() > low - 1e-6 and values.max() < high + 1e-6
        assert (values.amin(0) < low + 0.01 * (high - low)).all()
        assert (values.amax(0) > high - 0.01 * (high - low)).all()
        # A uniform variable's mean, within four standard errors.
        error = (high - low) / 12**0.5 / 3000**0.5
        assert (values.mean(0) - (low + high) / 2).abs().max() < 4 * error
    assert torch.corrcoef(torch.cat([scale, shift], 1).T).fill_diagonal_(0).abs().max() < 0.08


def test_scale_and_shift_moves_a_cloud_as_one_and_is_seeded():
    points = sphere(2, 50, dtype=torch.float64)
    out = scale_and_shift(points, named_generator(17))
    for cloud in range(2):
        for axis in range(3):
            x, y = points[cloud, :, axis], out[cloud, :, axis]
            slope = (y[1] - y[0]) / (x[1] - x[0])
            torch.testing.assert_close(y, y[0] + slope * (x - x[0]), rtol=0, atol=1e-12)
    assert out.equal(scale_and_shift(points, named_generator(17)))
    assert not out.equal(scale_and_shift(points, named_generator(18)))


def test_authors_normalize_centers_and_keeps_the_radius_of_a_centered_cloud():
    points = torch.cat([sphere(2, 50), -sphere(2, 50)], 1) * 3  # mean zero, radius 3
    torch.testing.assert_close(authors_normalize(points), points / 3, rtol=0, atol=1e-6)


def test_authors_normalize_shrinks_a_cloud_that_lies_off_the_origin():
    points = torch.tensor([[[3.0, 0, 0], [5.0, 0, 0]]])  # mean 4; radius before centring 5, after 1
    wanted = torch.tensor([[[-1 / 5, 0, 0], [1 / 5, 0, 0]]])
    assert authors_normalize(points).equal(wanted)


def test_authors_normalize_of_zeros_is_zeros():
    assert authors_normalize(torch.zeros(1, 4, 3)).tolist() == [[[0.0] * 3] * 4]


def test_authors_normalize_after_the_noise_changes_sigma_and_moves_untouched_points():
    points = sphere(20) * 0.5  # noise of 0.03 on a sphere of radius 0.5
    perturbed, touched, _ = Perturbation()(points, named_generator(19))
    before, after = authors_normalize(points), authors_normalize(perturbed)
    one = (perturbed[0] - points[0])[touched[0]]
    radius = perturbed[0].norm(dim=-1).max()
    assert 0.52 < radius < 0.65  # the noise enlarged it: not 0.5, and not 1
    # Among points of one cloud, differences show the noise: divided by that radius.
    moved = (after[0] * radius - points[0])[touched[0]]
    torch.testing.assert_close(moved - moved.mean(0), one - one.mean(0), rtol=0, atol=1e-6)
    assert (after - before)[~touched].norm(dim=-1).mean() > 0.03


def test_noise_that_another_patch_replaces_leaves_no_trace():
    """Not even where it is infinite: times zero it would be NaN."""
    points = torch.zeros(2, 64, 3, dtype=torch.float16)
    perturb = Perturbation(num_patches=20, patch_size=20, sigma=1e7)
    found = perturb(points, torch.Generator().manual_seed(0)).points
    assert found.isinf().any() and not found.isnan().any()
